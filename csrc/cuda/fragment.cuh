// Fragments of tensor-core operands from tiles in shared memory, the product of two of them, and
// results back into a tile. A step multiplies 16 x K by K x 16 where K is 32 bytes of the element:
// 16 of bfloat16 or float16, 8 of float, which is rounded to tf32.
//
// One warp, all 32 lanes together. kTransposed says that the tile in memory is the transpose of the
// operand: A is M x K, B is K x N.
#pragma once

#include "cuda/tile.cuh"

namespace suffuse {

template <class S>
constexpr int kMmaDepth = 32 / sizeof(S);

SUFFUSE_DEVICE void round_to_tf32(uint32_t& word) { word = gpu::to_tf32(__uint_as_float(word)); }

// A from row m and column k on.
template <bool kTransposed, class Tile>
SUFFUSE_DEVICE void load_a(uint32_t (&a)[4], const Tile& tile, int m, int k) {
  constexpr int kChunk = Tile::kPerChunk;
  const int lane = gpu::lane();
  if constexpr (!kTransposed) {
    gpu::load_matrix_x4(a, tile.at(m + (lane & 15), k + (lane >> 4) * kChunk));
  } else if constexpr (sizeof(typename Tile::S) == 2) {
    gpu::load_matrix_x4_transposed(
        a, tile.at(k + (lane & 7) + (lane >> 4) * 8, m + (lane >> 3 & 1) * kChunk));
  } else {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      a[i] = gpu::load_vector<uint32_t>(tile.at(k + t + (i >> 1) * 4, m + g + (i & 1) * 8));
    }
  }
  if constexpr (sizeof(typename Tile::S) == 4) {
#pragma unroll
    for (int i = 0; i < 4; i++) round_to_tf32(a[i]);
  }
}

// B from row k and columns n and n + 8 on.
template <bool kTransposed, class Tile>
SUFFUSE_DEVICE void load_b(uint32_t (&b)[2][2], const Tile& tile, int k, int n) {
  constexpr int kChunk = Tile::kPerChunk;
  const int lane = gpu::lane();
  uint32_t r[4];
  if constexpr (kTransposed) {
    gpu::load_matrix_x4(r, tile.at(n + (lane & 7) + (lane >> 4) * 8, k + (lane >> 3 & 1) * kChunk));
  } else if constexpr (sizeof(typename Tile::S) == 2) {
    gpu::load_matrix_x4_transposed(r, tile.at(k + (lane & 15), n + (lane >> 4) * kChunk));
  } else {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      r[i] = gpu::load_vector<uint32_t>(tile.at(k + t + (i & 1) * 4, n + g + (i >> 1) * 8));
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (sizeof(typename Tile::S) == 4) round_to_tf32(r[i]);
    b[i >> 1][i & 1] = r[i];
  }
}

// d += a b, 16 x 8.
template <class S>
SUFFUSE_DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (sizeof(S) == 4) {
    gpu::mma_m16n8k8_tf32(d, a, b);
  } else {
    gpu::mma_m16n8k16<S>(d, a, b);
  }
}

// d into a tile at (row, column): of TileOrder::columns where elements have 32 bits.
template <class Tile>
SUFFUSE_DEVICE void store_result(Tile& tile, const float (&d)[4], int row, int column) {
  const int lane = gpu::lane(), r = row + (lane >> 2), c = column + (lane & 3) * 2;
  if constexpr (sizeof(typename Tile::S) == 4) {
    gpu::store_vector(tile.at(r, c), float2{d[0], d[1]});
    gpu::store_vector(tile.at(r + 8, c), float2{d[2], d[3]});
  } else {
    gpu::store_vector(tile.at(r, c), gpu::pack<typename Tile::S>(d[0], d[1]));
    gpu::store_vector(tile.at(r + 8, c), gpu::pack<typename Tile::S>(d[2], d[3]));
  }
}

}  // namespace suffuse
