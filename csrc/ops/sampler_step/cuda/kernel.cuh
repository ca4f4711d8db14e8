// The step on CUDA: one pass over memory, a group of elements of every operand at a time.
#pragma once

#include "math/philox.h"
#include "ops/sampler_step/cuda/operands.cuh"

namespace suffuse {

// Adds the weighted normal numbers of elements [at, at + W) of the tensor: whole Philox blocks of
// 4, or one half of a block.
template <class T, int W>
SUFFUSE_DEVICE void add_normals(const SamplerStepParams& p, int64_t at, T weight, T (&sum)[W]) {
  PhiloxBlock words = {};
#pragma unroll
  for (int k = 0; k < W; k += 2) {
    if (k % 4 == 0) words = philox(static_cast<uint64_t>((at + k) / 4), p.offset, p.seed);
    const bool second = W == 2 ? (at & 2) != 0 : k % 4 == 2;
    float cosine, sine;
    box_muller(Word32::make(second ? words.c[2] : words.c[0]),
               Word32::make(second ? words.c[3] : words.c[1]), cosine, sine);
    sum[k] = fma(weight, static_cast<T>(cosine), sum[k]);
    sum[k + 1] = fma(weight, static_cast<T>(sine), sum[k + 1]);
  }
}

template <class X, class T, int W>
SUFFUSE_DEVICE void store_next(const SamplerStepParams& p, int64_t start, const Group& group,
                               const T (&next)[W]) {
  if constexpr (sizeof(X) == 8) {
    store_group(static_cast<double*>(p.next_input) + start, group, next);
  } else if (p.next_type == DType::bf16) {
    store_group(static_cast<bfloat16*>(p.next_input) + start, group, next);
  } else if (p.next_type == DType::f16) {
    store_group(static_cast<float16*>(p.next_input) + start, group, next);
  } else if constexpr (W == 4) {  // no other group has floats in it
    store_group(static_cast<float*>(p.next_input) + start, group, next);
  }
}

template <class X, class M, int W>
SUFFUSE_DEVICE void step_group(const SamplerStepParams& p, int64_t sample, const Group& group) {
  using T = Arithmetic<X>;
  const int64_t start = sample * p.elements;
  T x[W], model[W], sum[W], other[W];
  load_data_operands<X, M>(p, sample, group, x, model);

  // D, and what needs it
  const StepWeights<T> w = step_weights<T>(p, sample);
  const T scale = p.scales ? static_cast<const T*>(p.scales)[sample] : T(1);
#pragma unroll
  for (int k = 0; k < W; k++) {
    T data = step_data(w, x[k], model[k]);
    if (p.scales) data = step_rescale(data, scale);
    sum[k] = step_sample(w, x[k], model[k], data);
    other[k] = step_converted(w, x[k], model[k], data);
  }

  // the linear terms
  for (int i = 0; i < p.term_count; i++) {
    const X* term = static_cast<const X*>(p.terms[i].data) + sample * p.terms[i].batch_stride;
    const T weight = step_coefficient<T>(p, sample, p.term_columns[i]);
    T part[W];
    load_group(term, group, part);
#pragma unroll
    for (int k = 0; k < W; k++) sum[k] = fma(weight, part[k], sum[k]);
  }
  if (p.philox) {
    const T weight = step_coefficient<T>(p, sample, SamplerStepColumn::noise);
    add_normals(p, start + group.e, weight, sum);
  }

  // store
  store_group(static_cast<X*>(p.sample) + start, group, sum);
  if (p.converted) store_group(static_cast<X*>(p.converted) + start, group, other);
  if (!p.next_input) return;
#pragma unroll
  for (int k = 0; k < W; k++) sum[k] = w.next_scale * sum[k];
  store_next<X>(p, start, group, sum);
}

template <class X, class M, int W>
__global__ void __launch_bounds__(kSamplerStepThreads)
    sampler_step_kernel(const SamplerStepParams p) {
  const int64_t groups = groups_of_sample(p.batch, p.elements, W), total = p.batch * groups;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total;
       i += stride) {
    const int64_t sample = i / groups;
    const Group group = group_at<W>(p.elements, sample, i - sample * groups);
    if (group.first < group.last) step_group<X, M, W>(p, sample, group);
  }
}

}  // namespace suffuse
