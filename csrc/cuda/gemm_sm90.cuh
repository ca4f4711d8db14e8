// Matrix product on sm_90a: one warpgroup loads tiles by TMA into a ring of stages, the others
// multiply them by wgmma, 64 rows each, and store by TMA. Blocks stay and take tile after tile, so
// that loads of the next tile overlap with the stores of the last.
#pragma once

#include "cuda/gemm_sm90.h"
#include "cuda/operand_tile.cuh"
#include "cuda/stage_ring.cuh"
#include "cuda/vocab.cuh"

namespace suffuse {

template <class Gemm>
struct GemmSm90Shared {
  OperandTile<typename Gemm::S, Gemm::kA, Gemm::kRows, Gemm::kDepth> a[Gemm::kStages];
  OperandTile<typename Gemm::S, Gemm::kB, Gemm::kColumns, Gemm::kDepth> b[Gemm::kStages];
  OperandTile<typename Gemm::O, gpu::Major::k, 64, Gemm::kColumns> c[Gemm::kConsumers];
  StageRing<Gemm::kStages> ring;
};

// Where a tile of C starts. Tiles that are made at one time lie in few rows and columns, so that
// their operands meet in the L2 cache: bands of 8 tiles of rows, column by column.
struct GemmTile {
  int row, column;
};
template <class Gemm>
SUFFUSE_DEVICE GemmTile gemm_tile(const GemmSizes& sizes, int index) {
  constexpr int kBand = 8;
  const int rows = (sizes.m + Gemm::kRows - 1) / Gemm::kRows;
  const int columns = (sizes.n + Gemm::kColumns - 1) / Gemm::kColumns;
  const int band = index / (kBand * columns), within = index % (kBand * columns);
  const int height = min(kBand, rows - band * kBand);
  return {(band * kBand + within % height) * Gemm::kRows, within / height * Gemm::kColumns};
}

template <class Gemm>
SUFFUSE_DEVICE int gemm_tiles(const GemmSizes& sizes) {
  return (sizes.m + Gemm::kRows - 1) / Gemm::kRows *
         ((sizes.n + Gemm::kColumns - 1) / Gemm::kColumns);
}

template <class Gemm>
SUFFUSE_DEVICE void load_stages(GemmSm90Shared<Gemm>& s, const gpu::TensorMap& a,
                                const gpu::TensorMap& b, const GemmSizes& sizes) {
  RingPosition<Gemm::kStages> at;
  for (int i = blockIdx.x; i < gemm_tiles<Gemm>(sizes); i += gridDim.x) {
    const GemmTile tile = gemm_tile<Gemm>(sizes, i);
    for (int k = 0; k < sizes.k; k += Gemm::kDepth) {
      uint64_t* barrier = s.ring.begin_fill(at, Gemm::kStageBytes);
      s.a[at.stage].load(a, barrier, tile.row, k);
      s.b[at.stage].load(b, barrier, tile.column, k);
      at.advance();
    }
  }
}

// One tile of C in the accumulators. A stage is free once the product after it has been started and
// its own is through.
template <class Gemm>
SUFFUSE_DEVICE void multiply_stages(float (&d)[Gemm::kColumns / 2], GemmSm90Shared<Gemm>& s,
                                    int consumer, int depth, RingPosition<Gemm::kStages>& at) {
  int previous = at.stage;
  for (int k = 0; k < depth; k += Gemm::kDepth) {
    s.ring.wait_full(at);
    gpu::wgmma_fence(d);
    multiply_tiles(d, s.a[at.stage], 64 * consumer, s.b[at.stage], k > 0);
    gpu::wgmma_commit();
    gpu::wgmma_wait<1>(d);
    if (k > 0 && gpu::lane() == 0) s.ring.release(previous);
    previous = at.stage;
    at.advance();
  }
  gpu::wgmma_wait<0>(d);
  if (gpu::lane() == 0) s.ring.release(previous);
}

// The threads of a consumer, 128, meet at a barrier of their own.
template <class Gemm>
SUFFUSE_DEVICE void store_rows(const float (&d)[Gemm::kColumns / 2], GemmSm90Shared<Gemm>& s,
                               int consumer, const gpu::TensorMap& c, const GemmTile& tile,
                               bool elected) {
  if (elected) gpu::bulk_wait_read<0>();
  gpu::named_barrier_sync(1 + consumer, 128);
  store_accumulators(s.c[consumer], d);
  gpu::fence_async();
  gpu::named_barrier_sync(1 + consumer, 128);
  if (!elected) return;
  s.c[consumer].store(c, tile.row + 64 * consumer, tile.column);
  gpu::bulk_commit();
}

template <class Gemm>
SUFFUSE_DEVICE void make_tiles(GemmSm90Shared<Gemm>& s, int consumer, const gpu::TensorMap& c,
                               const GemmSizes& sizes) {
  const bool elected = threadIdx.x % 128 == 0;
  RingPosition<Gemm::kStages> at;
  for (int i = blockIdx.x; i < gemm_tiles<Gemm>(sizes); i += gridDim.x) {
    float d[Gemm::kColumns / 2];
    multiply_stages<Gemm>(d, s, consumer, sizes.k, at);
    store_rows<Gemm>(d, s, consumer, c, gemm_tile<Gemm>(sizes, i), elected);
  }
  if (elected) gpu::bulk_wait_read<0>();
}

struct GemmSm90Params {
  gpu::TensorMap a, b, c;  // by gemm_sm90_maps
  GemmSizes sizes;
};

// Launched by gemm_sm90_shape.
template <class Gemm>
__global__ void __launch_bounds__(Gemm::kThreads, 1)
    gemm_sm90_kernel(const __grid_constant__ GemmSm90Params p) {
  static_assert(sizeof(GemmSm90Shared<Gemm>) == Gemm::kSharedBytes);
  auto& s = gpu::shared<GemmSm90Shared<Gemm>>();
  if (threadIdx.x == 0) {
    gpu::prefetch_tensor_map(p.a);
    gpu::prefetch_tensor_map(p.b);
    gpu::prefetch_tensor_map(p.c);
    s.ring.init(4 * Gemm::kConsumers);
  }
  __syncthreads();
  // Registers of the loading warpgroup go to the others, which hold accumulators.
  constexpr int kLess = Gemm::kConsumers == 2 ? 40 : 32, kMore = Gemm::kConsumers == 2 ? 232 : 160;
  // The same for all lanes, and by the shuffle the compiler knows it.
  const int warpgroup = static_cast<int>(__shfl_sync(0xffffffffu, threadIdx.x / 128, 0));
  if (warpgroup == 0) {
    if constexpr (Gemm::kConsumers > 1) gpu::set_max_registers_down<kLess>();
    if (threadIdx.x / 32 == 0 && gpu::elect_one()) load_stages<Gemm>(s, p.a, p.b, p.sizes);
  } else {
    if constexpr (Gemm::kConsumers > 1) gpu::set_max_registers_up<kMore>();
    make_tiles<Gemm>(s, warpgroup - 1, p.c, p.sizes);
  }
}

}  // namespace suffuse
