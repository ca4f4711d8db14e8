// What the gradient of a row needs beside its products: delta = rowsum(dO O) - dlse, and lse in
// base 2, +inf where the row sees no key so that its weights vanish.
#pragma once

#include "cuda/reduce.cuh"
#include "ops/attention/cuda/backward_config.h"
#include "ops/attention/cuda/rows.cuh"
#include "ops/attention/cuda/scores.cuh"

namespace suffuse {

// Of the rows of one sequence and head, in the workspace, from its first row on.
struct AttentionRowTerms {
  float *lse, *delta;
};
SUFFUSE_DEVICE AttentionRowTerms row_terms(const AttentionGradParams& g, const AttentionSequence& s,
                                           int64_t h) {
  const AttentionParams& p = g.forward;
  float* const lse = static_cast<float*>(g.workspace);
  const int64_t of_batch = p.layout.q_starts != nullptr ? 0 : s.b * p.H * p.lse_head;
  const int64_t at = of_batch + h * p.lse_head + s.q_row;
  return {lse + at, lse + attention_lse_rows(p) + at};
}

// sum over the lane's share of kWidth elements each: a vector, or an element.
template <class S, int kWidth>
SUFFUSE_DEVICE float row_product(const S* a, const S* b, int columns, int lane) {
  float sum = 0;
  for (int c = lane * kWidth; c < columns; c += AttentionDelta::kLanes * kWidth) {
    if constexpr (kWidth == 1) {
      sum = fmaf(gpu::to_float(a[c]), gpu::to_float(b[c]), sum);
    } else {
      const uint4 x = gpu::load_vector_once<uint4>(a + c), y = gpu::load_vector_once<uint4>(b + c);
      const uint32_t words[2][4] = {{x.x, x.y, x.z, x.w}, {y.x, y.y, y.z, y.w}};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(S) == 4) {
          sum = fmaf(__uint_as_float(words[0][i]), __uint_as_float(words[1][i]), sum);
        } else {
          const float2 u = gpu::unpack<S>(words[0][i]), v = gpu::unpack<S>(words[1][i]);
          sum = fmaf(u.x, v.x, fmaf(u.y, v.y, sum));
        }
      }
    }
  }
  return sum;
}

// Launched by attention_delta_shape.
template <class S>
__global__ void __launch_bounds__(AttentionDelta::kThreads)
    attention_delta_kernel(const __grid_constant__ AttentionGradParams g, int bytes) {
  using Shape = AttentionDelta;
  const AttentionParams& p = g.forward;
  const uint32_t blocks = static_cast<uint32_t>(attention_row_blocks(p.T, Shape::kRows));
  const uint32_t pair = blockIdx.x / blocks, h = pair % static_cast<uint32_t>(p.H);
  const AttentionSequence s = attention_sequence(p, pair / static_cast<uint32_t>(p.H));
  const AttentionRows<S> out = query_rows<S>(p.out, s, h, p.Dv);
  const AttentionRows<S> grad = query_rows<S>(g.grad_out, s, h, p.Dv);
  const AttentionRowTerms terms = row_terms(g, s, h);
  const float infinity = __int_as_float(0x7f800000);
  const int lane = threadIdx.x % Shape::kLanes;
  int row = static_cast<int>(blockIdx.x % blocks) * Shape::kRows + threadIdx.x / Shape::kLanes;
#pragma unroll
  for (int round = 0; round < Shape::kRounds; round++, row += Shape::kThreads / Shape::kLanes) {
    float sum = 0;
    if (row < out.rows) {
      const S *const a = out.data + row * out.row, *const b = grad.data + row * grad.row;
      sum = bytes == 16 ? row_product<S, 16 / sizeof(S)>(a, b, out.columns, lane)
                        : row_product<S, 1>(a, b, out.columns, lane);
    }
    sum = warp_reduce<Shape::kLanes>(sum, Sum<float>());
    if (lane == 0 && row < out.rows) {
      const int64_t at = attention_lse(p, s, h, row);
      const float lse = static_cast<const float*>(p.lse)[at];
      const float* const grad_lse = static_cast<const float*>(g.grad_lse);
      terms.lse[row] = lse == -infinity ? infinity : lse * kAttentionLog2e;
      terms.delta[row] = grad_lse == nullptr ? sum : sum - grad_lse[at];
    }
  }
}

}  // namespace suffuse
