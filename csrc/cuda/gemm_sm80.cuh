// Tile GEMM C = A B on the tensor cores of sm_80 and later: bfloat16, float16, or float rounded to
// tf32; sums in float. The main loop serves other kernels too; gemm_sm80_kernel is the plain
// product.
#pragma once

#include "cuda/fragment.cuh"
#include "cuda/launch_shape.h"
#include "cuda/pipeline.cuh"

namespace suffuse {

// What a block does: kM x kN of C with kWarpsM x kWarpsN warps, in steps of kK along the sum.
// kTransposedA: A lies in memory as [K, M] instead of [M, K]; kTransposedB: B as [N, K] instead of
// [K, N].
template <class Element, int kM_, int kN_, int kWarpsM_, int kWarpsN_, int kStages_, bool kTransA,
          bool kTransB>
struct GemmSm80 {
  using S = Element;
  static constexpr int kM = kM_, kN = kN_, kK = 64 / sizeof(S), kStages = kStages_;
  static constexpr bool kTransposedA = kTransA, kTransposedB = kTransB;
  static constexpr int kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kWarpM = kM / kWarpsM, kWarpN = kN / kWarpsN;  // a warp's part
  static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;   // and in it
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0);

  // Read across its rows where the sum does not run along them.
  static constexpr TileOrder kAcross = sizeof(S) == 4 ? TileOrder::columns : TileOrder::rows;
  using TileA = std::conditional_t<kTransposedA, Tile<S, kK, kM, kAcross>, Tile<S, kM, kK>>;
  using TileB = std::conditional_t<kTransposedB, Tile<S, kN, kK>, Tile<S, kK, kN, kAcross>>;
  struct Stage {
    TileA a;
    TileB b;
  };
  using Sums = float[kTilesM][kTilesN][4];

  // Where in the block's part of C this warp's lies.
  SUFFUSE_DEVICE static int warp_m() { return static_cast<int>(gpu::warp() / kWarpsN * kWarpM); }
  SUFFUSE_DEVICE static int warp_n() { return static_cast<int>(gpu::warp() % kWarpsN * kWarpN); }
};

// sums += A B of one stage.
template <class Config>
SUFFUSE_DEVICE void multiply_stage(typename Config::Sums& sums,
                                   const typename Config::Stage& stage) {
  using S = typename Config::S;
#pragma unroll
  for (int k = 0; k < Config::kK; k += kMmaDepth<S>) {
    uint32_t a[Config::kTilesM][4], b[Config::kTilesN / 2][2][2];
#pragma unroll
    for (int i = 0; i < Config::kTilesM; i++) {
      load_a<Config::kTransposedA>(a[i], stage.a, Config::warp_m() + i * 16, k);
    }
#pragma unroll
    for (int j = 0; j < Config::kTilesN / 2; j++) {
      load_b<Config::kTransposedB>(b[j], stage.b, k, Config::warp_n() + j * 16);
    }
#pragma unroll
    for (int i = 0; i < Config::kTilesM; i++) {
#pragma unroll
      for (int j = 0; j < Config::kTilesN; j++) multiply<S>(sums[i][j], a[i], b[j / 2][j % 2]);
    }
  }
}

// sums += A B for the block's part of C from row m and column n on; a and b as they lie in memory,
// k the length of the sum. kBytes divides copy_bytes of both. Afterwards the stages need a barrier
// before they serve something else.
template <class Config, int kBytes>
SUFFUSE_DEVICE void gemm_main_loop(typename Config::Sums& sums,
                                   typename Config::Stage (&stages)[Config::kStages],
                                   const Matrix<const typename Config::S>& a,
                                   const Matrix<const typename Config::S>& b, int m, int n, int k) {
  const auto load = [&](int stage, int i) {
    const int first = i * Config::kK;
    load_tile<kBytes, Config::kThreads>(stages[stage].a, a, Config::kTransposedA ? first : m,
                                        Config::kTransposedA ? m : first);
    load_tile<kBytes, Config::kThreads>(stages[stage].b, b, Config::kTransposedB ? n : first,
                                        Config::kTransposedB ? first : n);
  };
  const auto compute = [&](int stage, int) { multiply_stage<Config>(sums, stages[stage]); };
  pipelined_loop<Config::kStages>((k + Config::kK - 1) / Config::kK, load, compute);
}

// Writes sums, rounded to Out, where they belong in c.
template <class Config, int kBytes, class Tile>
SUFFUSE_DEVICE void store_sums(const typename Config::Sums& sums, Tile& tile,
                               const Matrix<typename Tile::S>& c, int m, int n) {
#pragma unroll
  for (int i = 0; i < Config::kTilesM; i++) {
#pragma unroll
    for (int j = 0; j < Config::kTilesN; j++) {
      store_result(tile, sums[i][j], Config::warp_m() + i * 16, Config::warp_n() + j * 8);
    }
  }
  __syncthreads();
  store_tile<kBytes, Config::kThreads>(tile, c, m, n);
}

template <class S, class Out>
struct GemmSm80Params {
  Matrix<const S> a, b;  // as they lie in memory
  Matrix<Out> c;         // [M, N]
  int k;                 // the length of the sum
};

template <class Config, class Out>
union GemmSm80Shared {
  typename Config::Stage stages[Config::kStages];
  Tile<Out, Config::kM, Config::kN, sizeof(Out) == 4 ? TileOrder::columns : TileOrder::rows> out;
};

// kBytes divides copy_bytes of a and b, kOutBytes of c.
template <class Config, class Out, int kBytes, int kOutBytes>
__global__ void __launch_bounds__(Config::kThreads)
    gemm_sm80_kernel(const GemmSm80Params<typename Config::S, Out> p) {
  auto& shared = gpu::shared<GemmSm80Shared<Config, Out>>();
  const int blocks_m = (p.c.rows + Config::kM - 1) / Config::kM;
  const int m = blockIdx.x % blocks_m * Config::kM, n = blockIdx.x / blocks_m * Config::kN;

  typename Config::Sums sums = {};
  gemm_main_loop<Config, kBytes>(sums, shared.stages, p.a, p.b, m, n, p.k);
  __syncthreads();
  store_sums<Config, kOutBytes>(sums, shared.out, p.c, m, n);
}

template <class Config, class Out>
LaunchShape gemm_sm80_shape(const GemmSm80Params<typename Config::S, Out>& p) {
  const int64_t blocks_m = (p.c.rows + Config::kM - 1) / Config::kM;
  const int64_t blocks_n = (p.c.columns + Config::kN - 1) / Config::kN;
  return {blocks_m * blocks_n, Config::kThreads, sizeof(GemmSm80Shared<Config, Out>)};
}

}  // namespace suffuse
