// The backward pass of qk_norm on CUDA: rows of threads take heads one after another, with the sums
// of the weight's gradient in registers. No atomic: the same bits at every run.
#pragma once

#include "ops/qk_norm/cuda/rows.cuh"

namespace suffuse {

template <class S, bool kWide>
using QkNormBackwardReduce = QkNormReduce<QkNormNumber<S>, 2, kWide>;

template <class S, bool kWide>
struct QkNormBackwardShared {
  static constexpr int kItems = 2 * group_size(sizeof(S));
  typename QkNormBackwardReduce<S, kWide>::Shared reduce;
  // The sums of all threads, item by item. `lanes` numbers more in each keep the items that a warp
  // adds up in different banks.
  QkNormNumber<S> sums[kItems * (qk_norm_threads(kWide) + (kWide ? 0 : 32))];
};

// Adds the gradient of a head to sums, and stores that of x.
template <class S, class Reduce>
SUFFUSE_DEVICE void qk_norm_head_backward(const QkNormGradParams& g, int side, int64_t index,
                                          QkNormColumns<S>& columns, Reduce& reduce,
                                          QkNormNumber<S> (&sums)[2][QkNormColumns<S>::W]) {
  using T = QkNormNumber<S>;
  constexpr int W = QkNormColumns<S>::W;
  const QkNormParams& p = g.forward;
  const uint32_t heads = static_cast<uint32_t>(p.sides[side].heads);
  const uint32_t token = static_cast<uint32_t>(index) / heads;  // a 64-bit division is long
  const uint32_t length = static_cast<uint32_t>(p.length), batch = token / length;
  const uint32_t time = token - batch * length;
  const int64_t head = index - static_cast<int64_t>(token) * heads;
  const bool there = batch < p.batch;
  T x[2][W] = {}, grad[2][W] = {};
  if (there) {
    columns.load(qk_norm_head<const S>(p.sides[side].x, batch, time, head), x);
    columns.load(qk_norm_head<const S>(g.grad_out[side], batch, time, head), grad);
    columns.load_angles(p, batch, time, true);
    columns.rotate(grad);
  }
  // From the cache, for each head again: with the angles at once there would be too few registers.
  columns.load_weight(p.sides[side]);
  QkNormSums<T, 2> parts = {};
#pragma unroll
  for (int k = 0; k < 2 * W; k++) {
    const T value = x[k / W][k % W], slope = grad[k / W][k % W] * columns.weight[k / W][k % W];
    parts.sum[0] = fma(value, value, parts.sum[0]);
    parts.sum[1] = fma(slope, value, parts.sum[1]);
  }
  parts = reduce(parts);
  const T size = static_cast<T>(p.columns);
  const T r = inverse_sqrt(parts.sum[0] / size + static_cast<T>(p.eps));
  const T mean = parts.sum[1] / size * r * r * r;
  if (!there) return;
#pragma unroll
  for (int k = 0; k < 2 * W; k++) {
    const T value = x[k / W][k % W], back = grad[k / W][k % W];
    sums[k / W][k % W] = fma(back, value * r, sums[k / W][k % W]);
    x[k / W][k % W] = fma(-value, mean, back * columns.weight[k / W][k % W] * r);
  }
  columns.store(qk_norm_head<S>(g.grad_x[side], batch, time, head), x);
}

// As few blocks are asked for as leave registers for all: with one more, some are spilled.
template <class S, bool kWide>
__global__ void __launch_bounds__(qk_norm_threads(kWide), kWide ? 1 : 3)
    qk_norm_backward_kernel(const QkNormGradParams g) {
  using Shared = QkNormBackwardShared<S, kWide>;
  using T = QkNormNumber<S>;
  constexpr int W = QkNormColumns<S>::W, kThreads = qk_norm_threads(kWide);
  auto& shared = gpu::shared<Shared>();
  const QkNormParams& p = g.forward;
  const int lanes = qk_norm_lanes(p, W), rows = kThreads / lanes;
  const int row = static_cast<int>(threadIdx.x) / lanes, lane = threadIdx.x - row * lanes;
  const int64_t queries = qk_norm_blocks(p, 0, W);
  const int side = blockIdx.x >= queries;
  const int64_t block = side ? blockIdx.x - queries : blockIdx.x;
  const int64_t blocks = side ? gridDim.x - queries : queries;
  QkNormBackwardReduce<S, kWide> reduce(shared.reduce, lanes);

  // all heads of the block's share
  QkNormColumns<S> columns(p, lane);
  T sums[2][W] = {};
  const int64_t all = p.batch * p.length * p.sides[side].heads;
  for (int64_t first = block * rows; first < all; first += blocks * rows) {
    qk_norm_head_backward<S>(g, side, first + row, columns, reduce, sums);
  }
  if (!g.grad_weight[side]) return;

  // the sums of the rows, in their order
  const int stride = kThreads + (kWide ? 0 : lanes);
#pragma unroll
  for (int k = 0; k < 2 * W; k++) shared.sums[k * stride + threadIdx.x] = sums[k / W][k % W];
  __syncthreads();
  T* out = static_cast<T*>(g.partials) +
           (side ? qk_norm_partial_rows(g, 0, W) : 0) * qk_norm_row(p, W) +
           block * qk_norm_row(p, W);
  for (int k = row; k < 2 * W; k += rows) {
    T total = 0;
    for (int r = 0; r < rows; r++) total += shared.sums[k * stride + r * lanes + lane];
    out[k * lanes + lane] = total;
  }
}

// A thread for each number in a row of partials; blockIdx.y: the side.
template <class S>
__global__ void __launch_bounds__(QkNormShape::kFinishThreads)
    qk_norm_finish_kernel(const QkNormGradParams g) {
  using T = QkNormNumber<S>;
  constexpr int W = QkNormColumns<S>::W;
  const QkNormParams& p = g.forward;
  const int side = static_cast<int>(blockIdx.y), lanes = qk_norm_lanes(p, W);
  const int64_t row = qk_norm_row(p, W),
                index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  T* to = static_cast<T*>(g.grad_weight[side]);
  if (!to || index >= row) return;
  const T* from =
      static_cast<const T*>(g.partials) + (side ? qk_norm_partial_rows(g, 0, W) : 0) * row + index;
  const int64_t blocks = qk_norm_partial_rows(g, side, W);
  T total = 0;
  for (int64_t b = 0; b < blocks; b++) total += from[b * row];
  const int item = static_cast<int>(index) / lanes;
  const QkNormColumns<S> columns(p, static_cast<int>(index) - item * lanes);
  const bool first = item < W;
  const int64_t e = first ? columns.slot.first.e : columns.slot.second.e;
  const int last = first ? columns.slot.first.last : columns.slot.second.last;
  if (item % W < last) to[e + item % W] = total;
}

}  // namespace suffuse
