// Products and sums on CUDA, in double as on the CPU and for the same reason. Two kernels and no
// atomic: the same bits at every run.
#pragma once

#include "cuda/groups.cuh"
#include "cuda/reduce.cuh"
#include "ops/guidance_gram/cuda/config.h"

namespace suffuse {

// One row of partials.
template <int N>
struct GramRow {
  double entries[gram_entries(N)];
};
struct AddRows {
  template <int N>
  SUFFUSE_DEVICE GramRow<N> operator()(const GramRow<N>& a, const GramRow<N>& b) const {
    GramRow<N> sum;
#pragma unroll
    for (int k = 0; k < gram_entries(N); k++) sum.entries[k] = a.entries[k] + b.entries[k];
    return sum;
  }
};

// Adds what one group of W elements of all tensors gives.
template <class S, int N, int W>
SUFFUSE_DEVICE void add_group(const GuidanceGramParams& p, int64_t sample, const Group& group,
                              GramRow<N>& row) {
  using T = decltype(widen(S{}));
  T values[N][W];
#pragma unroll
  for (int i = 0; i < N; i++) {
    const S* data = static_cast<const S*>(p.tensors[i].data) + sample * p.tensors[i].batch_stride;
    load_group(data, group, values[i]);
  }
#pragma unroll
  for (int k = 0; k < W; k++) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const double value = values[i][k];
#pragma unroll
      for (int j = 0; j <= i; j++) {
        double& sum = row.entries[gram_product(i, j)];
        sum = fma(value, static_cast<double>(values[j][k]), sum);
      }
      row.entries[gram_sum(N, i)] += value;
    }
  }
}

template <int N>
LaunchShape guidance_gram_rows_shape(const GuidanceGramParams& p) {
  return {p.batch * p.pieces, GuidanceGramShape::kThreads,
          static_cast<int32_t>(sizeof(typename BlockReduce<GramRow<N>>::Shared))};
}

// Block b: piece b % pieces of sample b / pieces. S: storage type; N: tensors. Two blocks on a
// multiprocessor are enough to ask for: for more, registers would be spilled.
template <class S, int N>
__global__ void __launch_bounds__(GuidanceGramShape::kThreads, 2)
    guidance_gram_rows_kernel(const GuidanceGramParams p, int64_t rounds) {
  constexpr int W = group_size(sizeof(S)), kThreads = GuidanceGramShape::kThreads;
  using Reduce = BlockReduce<GramRow<N>>;
  auto& shared = gpu::shared<typename Reduce::Shared>();
  const int64_t sample = blockIdx.x / p.pieces, piece = blockIdx.x - sample * p.pieces;
  const int64_t first = piece * rounds * kThreads + threadIdx.x;
  GramRow<N> row = {};
  for (int64_t round = 0; round < rounds; round++) {
    const Group group = group_at<W>(p.elements, sample, first + round * kThreads);
    if (group.first < group.last) add_group<S, N, W>(p, sample, group, row);
  }
  row = Reduce(shared)(row, AddRows());
  double mine = 0;  // and the padding's
#pragma unroll
  for (int k = 0; k < gram_entries(N); k++) {
    if (threadIdx.x == k) mine = row.entries[k];
  }
  double* out = p.partials + static_cast<int64_t>(blockIdx.x) * gram_row(N);
  if (threadIdx.x < gram_row(N)) out[threadIdx.x] = mine;
}

struct GramFinish {
  double sums[GuidanceGramShape::kSlices][GuidanceGramShape::kSlots];
  double totals[GuidanceGramShape::kSlots];
};

inline LaunchShape guidance_gram_finish_shape(const GuidanceGramParams& p) {
  using Shape = GuidanceGramShape;
  return {p.batch, Shape::kFinishThreads, sizeof(GramFinish)};
}

// Block b: the results of sample b from its rows.
template <int N>
__global__ void __launch_bounds__(GuidanceGramShape::kFinishThreads)
    guidance_gram_finish_kernel(const GuidanceGramParams p) {
  using Shape = GuidanceGramShape;
  auto& shared = gpu::shared<GramFinish>();
  const int64_t sample = blockIdx.x;
  const int slice = threadIdx.x / Shape::kSlots, slot = threadIdx.x % Shape::kSlots;
  const double* rows = p.partials + sample * p.pieces * gram_row(N);
  double sum = 0;
  if (slot < gram_row(N)) {
    for (int64_t r = slice; r < p.pieces; r += Shape::kSlices) sum += rows[r * gram_row(N) + slot];
  }
  shared.sums[slice][slot] = sum;
  __syncthreads();
  if (slice == 0) {
    double total = 0;
    for (int s = 0; s < Shape::kSlices; s++) total += shared.sums[s][slot];
    shared.totals[slot] = total;
  }
  __syncthreads();
  if (threadIdx.x >= N * N) return;
  const int i = threadIdx.x / N, j = threadIdx.x % N;
  p.gram[sample * N * N + threadIdx.x] = gram_entry(p, shared.totals, i, j);
  if (j == 0) p.means[sample * N + i] = gram_mean(p, shared.totals, i);
}

}  // namespace suffuse
