// qk_norm on CUDA: a row of threads has a few heads of a token, one after another.
#pragma once

#include "ops/qk_norm/cuda/rows.cuh"

namespace suffuse {

template <class S, bool kWide>
using QkNormForwardReduce = QkNormReduce<QkNormNumber<S>, 1, kWide>;
template <class S, bool kWide>
struct QkNormForwardShared {
  typename QkNormForwardReduce<S, kWide>::Shared reduce;
};

// What a row of threads does: heads first, first + rows, ... of one side of a token.
struct QkNormPlace {
  int64_t batch, time;
  uint32_t first, rows;
  int side;
  bool there;
};

// Divisions of 32 bits: 64-bit ones would take as long as the rest.
SUFFUSE_DEVICE QkNormPlace qk_norm_place(const QkNormParams& p, uint32_t row) {
  const uint32_t queries = static_cast<uint32_t>(qk_norm_rows(p, 0));
  const uint32_t keys = static_cast<uint32_t>(qk_norm_rows(p, 1));
  const uint32_t token = row / (queries + keys), inside = row - token * (queries + keys);
  const uint32_t length = static_cast<uint32_t>(p.length), batch = token / length;
  const bool is_key = inside >= queries;
  return {
      batch,  token - batch * length, is_key ? inside - queries : inside, is_key ? keys : queries,
      is_key, batch < p.batch};
}

template <class S, bool kWide>
__global__ void __launch_bounds__(qk_norm_threads(kWide))
    qk_norm_forward_kernel(const QkNormParams p) {
  using Columns = QkNormColumns<S>;
  using T = typename Columns::T;
  constexpr int W = Columns::W;
  auto& shared = gpu::shared<QkNormForwardShared<S, kWide>>();
  const int lanes = qk_norm_lanes(p, W);
  const uint32_t rows = qk_norm_threads(kWide) / lanes, row = threadIdx.x / lanes;
  const QkNormPlace at = qk_norm_place(p, blockIdx.x * rows + row);
  const QkNormHeads& side = p.sides[at.side];
  QkNormForwardReduce<S, kWide> reduce(shared.reduce, lanes);

  Columns columns(p, static_cast<int>(threadIdx.x) - static_cast<int>(row) * lanes);
  if (at.there) {
    columns.load_weight(side);
    columns.load_angles(p, at.batch, at.time, false);
  }
#pragma unroll 2
  for (int i = 0; i < QkNormShape::kHeads; i++) {
    const int64_t head = at.first + static_cast<int64_t>(i) * at.rows;
    const bool there = at.there && head < side.heads;
    T x[2][W] = {};
    if (there) columns.load(qk_norm_head<const S>(side.x, at.batch, at.time, head), x);
    T squares = 0;
#pragma unroll
    for (int k = 0; k < W; k++) squares = fma(x[0][k], x[0][k], fma(x[1][k], x[1][k], squares));
    const T sum = reduce({{squares}}).sum[0];
    const T scale = inverse_sqrt(sum / static_cast<T>(p.columns) + static_cast<T>(p.eps));
    if (!there) continue;
#pragma unroll
    for (int k = 0; k < W; k++) {
      x[0][k] = x[0][k] * scale * columns.weight[0][k];
      x[1][k] = x[1][k] * scale * columns.weight[1][k];
    }
    columns.rotate(x);
    columns.store(qk_norm_head<S>(side.out, at.batch, at.time, head), x);
  }
}

}  // namespace suffuse
