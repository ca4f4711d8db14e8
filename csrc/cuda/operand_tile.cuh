// Tiles in shared memory in the layout that TMA writes and reads and wgmma takes as an operand.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/swizzle.h"
#include "cuda/vocab.cuh"

namespace suffuse {

// kExtent of the operand's M or N times kDepth of its K, in boxes whose rows are one swizzle span:
// K-major a box has kExtent rows and a part of K, MN-major kDepth rows and a part of M or N.
template <class S, gpu::Major kMajor, int kExtent, int kDepth>
struct OperandTile {
  static constexpr bool kAlongK = kMajor == gpu::Major::k;
  static constexpr int kRows = kAlongK ? kExtent : kDepth;
  static constexpr int kRowBytes = (kAlongK ? kDepth : kExtent) * static_cast<int>(sizeof(S));
  static constexpr int kSpan = kRowBytes < 128 ? kRowBytes : 128;
  static constexpr gpu::Swizzle kSwizzle = gpu::swizzle_of_span(kSpan);
  static constexpr int kBoxColumns = kSpan / static_cast<int>(sizeof(S));
  static constexpr int kBoxBytes = kRows * kSpan;
  static constexpr int kBytes = kExtent * kDepth * static_cast<int>(sizeof(S));
  static constexpr int kStep = 32 / static_cast<int>(sizeof(S));  // K of one wgmma
  static_assert((kSpan == 32 || kSpan == 64 || kSpan == 128) && kRowBytes % kSpan == 0);
  static_assert(kRows % 8 == 0 && kRows <= 256);

  alignas(1024) unsigned char bytes[kBytes];

  // By one thread: fills the tile from (mn, k) of a tensor on; kBytes arrive at the barrier. The
  // tensor's dimensions beyond the operand's two stand at `others`.
  template <class... Others>
  SUFFUSE_DEVICE void load(const gpu::TensorMap& map, uint64_t* barrier, int mn, int k,
                           Others... others) {
#pragma unroll
    for (int box = 0; box < kBytes / kBoxBytes; box++) {
      gpu::tensor_load(bytes + box * kBoxBytes, map, (kAlongK ? k : mn) + box * kBoxColumns,
                       kAlongK ? mn : k, others..., barrier);
    }
  }

  // By one thread: the opposite, as part of its bulk group.
  template <class... Others>
  SUFFUSE_DEVICE void store(const gpu::TensorMap& map, int mn, int k, Others... others) const {
#pragma unroll
    for (int box = 0; box < kBytes / kBoxBytes; box++) {
      gpu::tensor_store(map, (kAlongK ? k : mn) + box * kBoxColumns, kAlongK ? mn : k, others...,
                        bytes + box * kBoxBytes);
    }
  }

  // Where the element lies.
  SUFFUSE_DEVICE static uint32_t offset_of(uint32_t mn, uint32_t k) {
    return gpu::swizzle_offset(plain_offset(mn, k), kSwizzle);
  }

  // The operand that starts at (mn, k): k a multiple of kStep, mn of 8 (K-major) or of a box.
  SUFFUSE_DEVICE uint64_t descriptor(uint32_t mn, uint32_t k) const {
    return gpu::wgmma_descriptor(bytes, kSwizzle, kAlongK ? 16 : kBoxBytes, 8 * kSpan) +
           plain_offset(mn, k) / 16;
  }

 private:
  // As it would be without swizzle.
  SUFFUSE_DEVICE static uint32_t plain_offset(uint32_t mn, uint32_t k) {
    const uint32_t row = kAlongK ? mn : k, column = kAlongK ? k : mn;
    return column / kBoxColumns * kBoxBytes + row * kSpan +
           column % kBoxColumns * static_cast<uint32_t>(sizeof(S));
  }
};

// d (64 x N) = or += rows [row, row + 64) of A times B over the depth of the tiles. The caller
// fences, commits and waits.
template <class S, gpu::Major kA, gpu::Major kB, int kRows, int N, int kDepth>
SUFFUSE_DEVICE void multiply_tiles(float (&d)[N / 2], const OperandTile<S, kA, kRows, kDepth>& a,
                                   uint32_t row, const OperandTile<S, kB, N, kDepth>& b,
                                   bool accumulate) {
  constexpr int kStep = OperandTile<S, kA, kRows, kDepth>::kStep;
#pragma unroll
  for (uint32_t k = 0; k < kDepth; k += kStep) {
    gpu::wgmma<N, S, kA, kB>(d, a.descriptor(row, k), b.descriptor(0, k), accumulate || k > 0);
  }
}

// Accumulators of a warpgroup into its tile, 64 x N with N contiguous, without bank conflicts.
template <class O, int N>
SUFFUSE_DEVICE void store_accumulators(OperandTile<O, gpu::Major::k, 64, N>& tile,
                                       const float (&d)[N / 2]) {
  using Tile = OperandTile<O, gpu::Major::k, 64, N>;
  const uint32_t lane = gpu::lane(), first_row = gpu::warp() % 4 * 16 + lane / 4;
#pragma unroll
  for (uint32_t i = 0; i < N / 2; i += 2) {
    const uint32_t row = first_row + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
    if constexpr (sizeof(O) == 2) {
      gpu::store_vector(tile.bytes + Tile::offset_of(row, column), gpu::pack<O>(d[i], d[i + 1]));
    } else {
      // Rows of odd and even index meet in the same chunks of banks: they take turns.
      const bool odd = row % 2 != 0;
      gpu::store_vector(tile.bytes + Tile::offset_of(row, column + odd), odd ? d[i + 1] : d[i]);
      gpu::store_vector(tile.bytes + Tile::offset_of(row, column + !odd), odd ? d[i] : d[i + 1]);
    }
  }
}

}  // namespace suffuse
