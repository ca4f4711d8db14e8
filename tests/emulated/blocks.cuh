// Kernels that hold one building block each, for tests.
#pragma once

#include "cuda/look_back.cuh"
#include "cuda/pipeline.cuh"
#include "cuda/reduce.cuh"
#include "cuda/scan.cuh"
#include "cuda/tile.cuh"
#include "math/linear_scan.h"

namespace suffuse {

// 2 x 2 integers modulo 2^32: their product is exact, associative, and depends on the order.
struct Square {
  uint32_t a, b, c, d;
};
struct SquareProduct {
  SUFFUSE_HD static Square identity() { return {1, 0, 0, 1}; }
  SUFFUSE_HD Square operator()(Square x, Square y) const {
    return {x.a * y.a + x.b * y.c, x.a * y.b + x.b * y.d, x.c * y.a + x.d * y.c,
            x.c * y.b + x.d * y.d};
  }
};
SUFFUSE_DEVICE Square load_square(const Square* p) {
  const uint4 v = gpu::load_vector<uint4>(p);
  return {v.x, v.y, v.z, v.w};
}
SUFFUSE_DEVICE void store_square(Square* p, Square x) {
  gpu::store_vector(p, uint4{x.a, x.b, x.c, x.d});
}

// y[row] = op over x[row, :]. A block takes one row after another; a different thread of it writes
// each.
template <class Op>
__global__ void __launch_bounds__(1024)
    reduce_rows_kernel(const float* x, float* y, int rows, int length) {
  auto& shared = gpu::shared<BlockReduce<float>::Shared>();
  BlockReduce<float> reduce(shared);
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    float value = Op::identity();
    for (int e = threadIdx.x; e < length; e += blockDim.x) {
      value = Op()(value, x[static_cast<int64_t>(row) * length + e]);
    }
    value = reduce(value, Op());
    if (threadIdx.x == row % blockDim.x) y[row] = value;
  }
}

// x [rounds, threads]. Of each round: `all`, the product over the threads; groups [rounds,
// threads], that over groups of 4, 8 and 16 lanes in turn.
__global__ void __launch_bounds__(1024)
    reduce_squares_kernel(const Square* x, Square* all, Square* groups, int rounds) {
  auto& shared = gpu::shared<BlockReduce<Square>::Shared>();
  BlockReduce<Square> reduce(shared);
  const SquareProduct op;
  const int thread = threadIdx.x;
  for (int round = 0; round < rounds; round++) {
    const int i = round * blockDim.x + thread;
    const Square mine = load_square(x + i), product = reduce(mine, op);
    if (thread == round) store_square(all + round, product);
    store_square(groups + i, round % 3 == 0   ? warp_reduce<4>(mine, op)
                             : round % 3 == 1 ? warp_reduce<8>(mine, op)
                                              : warp_reduce<16>(mine, op));
  }
}

// y[t] = x[0] ... x[t], with kItems a thread and a carry from tile to tile; x [tiles, threads,
// kItems]. carries [tiles, threads]: each thread's carry behind each tile.
template <int kItems>
__global__ void __launch_bounds__(1024)
    scan_squares_kernel(const Square* x, Square* y, Square* carries, int tiles) {
  using Scan = BlockScan<Square, SquareProduct>;
  Scan scan(gpu::shared<typename Scan::Shared>());
  Square carry = SquareProduct::identity();
  for (int tile = 0; tile < tiles; tile++) {
    const int thread = tile * blockDim.x + threadIdx.x;
    Square items[kItems];
#pragma unroll
    for (int i = 0; i < kItems; i++) items[i] = load_square(x + thread * kItems + i);
    scan.inclusive(items, carry);
#pragma unroll
    for (int i = 0; i < kItems; i++) store_square(y + thread * kItems + i, items[i]);
    store_square(carries + thread, carry);
  }
}

// Every block has a row of `chunks` totals for itself. Warps 1 and 2 publish them in the row's
// order, those of kinds[row, chunk] = 1 as totals alone, of 2 as prefixes alone, of 3 as totals and
// later as prefixes; meanwhile warp 0 looks back from behind the last one.
struct LookBackParams {
  const Affine<float>* totals;      // [chunks]
  const int32_t *kinds, *order;     // [rows, chunks]
  Affine<float>*prefixes, *result;  // [rows, chunks + 1], made one after another; [rows]
  void* workspace;
  int chunks;
};
__global__ void __launch_bounds__(96) look_back_kernel(const LookBackParams p) {
  using Compose = ComposeAffine<float>;
  using Chunks = LookBack<Affine<float>, Compose>;
  const int row = blockIdx.x, chunks = p.chunks, thread = threadIdx.x;
  const Affine<float> start = {1.f, 0.5f};
  Chunks look_back(p.workspace, gridDim.x, chunks, row);
  if (gpu::warp() == 0) {
    const Affine<float> found = look_back.look_back(chunks, start);
    if (thread == 0) p.result[row] = found;
    return;
  }
  Affine<float>* prefixes = p.prefixes + row * (chunks + 1);
  if (thread == 32) {
    Affine<float> sum = prefixes[0] = start;
    for (int i = 0; i < chunks; i++) prefixes[i + 1] = sum = Compose()(sum, p.totals[i]);
  }
  gpu::named_barrier_sync(1, 64);
  for (int turn = 1; turn <= 2; turn++) {
    for (int i = thread - 32; i < chunks; i += 64) {
      const int chunk = p.order[row * chunks + i], kind = p.kinds[row * chunks + chunk];
      if (turn == 1 && kind & 1) look_back.publish(chunk, Chunks::kTotal, p.totals[chunk]);
      if (turn == 2 && kind & 2) look_back.publish(chunk, Chunks::kPrefix, prefixes[chunk + 1]);
    }
  }
}

// to = from, tile by tile: each block takes kRows rows, and their tiles of kColumns one after
// another.
template <class S, int kRows, int kColumns, int kBytes, int kStages, int kThreads>
__global__ void __launch_bounds__(kThreads)
    copy_tiles_kernel(const Matrix<const S> from, const Matrix<S> to) {
  using Block = Tile<S, kRows, kColumns>;
  struct Shared {
    Block tiles[kStages];
  };
  auto& shared = gpu::shared<Shared>();
  const int row = blockIdx.x * kRows;
  pipelined_loop<kStages>(
      (from.columns + kColumns - 1) / kColumns,
      [&](int stage, int i) {
        load_tile<kBytes, kThreads>(shared.tiles[stage], from, row, i * kColumns);
      },
      [&](int stage, int i) {
        store_tile<kBytes, kThreads>(shared.tiles[stage], to, row, i * kColumns);
      });
}

}  // namespace suffuse
