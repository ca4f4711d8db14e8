// The CUDA kernels of sampler_step: the step, element by element, and the per-sample quantile of
// dynamic thresholding.
#pragma once

#include "math/philox.h"
#include "ops/sampler_step/coefficients.h"
#include "ops/sampler_step/cuda/access-inl.cuh"
#include "ops/sampler_step/cuda/config.h"

namespace suffuse {

// Four normal numbers of one Philox block, weighted and added.
template <class T>
__device__ __forceinline__ void add_normals(const SamplerStepParams& p, uint64_t block, T weight,
                                            T* sum) {
  const PhiloxBlock words = philox(block, p.offset, p.seed);
  float normal[4];
  box_muller(Word32::make(words.c[0]), Word32::make(words.c[1]), normal[0], normal[1]);
  box_muller(Word32::make(words.c[2]), Word32::make(words.c[3]), normal[2], normal[3]);
#pragma unroll
  for (int k = 0; k < 4; k++) sum[k] = fma(weight, static_cast<T>(normal[k]), sum[k]);
}

// One group of W elements from element e of a sample on, of which [first, last) belong to the
// sample.
template <class X, class M, int W>
__device__ void step_group(const SamplerStepParams& p, int64_t sample, int64_t e, int first,
                           int last) {
  using T = Arithmetic<X>;
  using C = SamplerStepColumn;

  // load: x and F = sum of guidance_k models[k]
  T x[W], model[W], part[W], sum[W], other[W];
  load_group(static_cast<const X*>(p.x.data) + sample * p.x.batch_stride + e, first, last, x);
#pragma unroll
  for (int k = 0; k < W; k++) model[k] = T(0);
  for (int i = 0; i < p.model_count; i++) {
    const M* output = static_cast<const M*>(p.models[i].data) + sample * p.models[i].batch_stride;
    const T weight = step_coefficient<T>(p, sample, C::guidance + i);
    load_group(output + e, first, last, part);
#pragma unroll
    for (int k = 0; k < W; k++) {
      model[k] = i == 0 ? weight * part[k] : fma(weight, part[k], model[k]);
    }
  }

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
    load_group(term + e, first, last, part);
#pragma unroll
    for (int k = 0; k < W; k++) sum[k] = fma(weight, part[k], sum[k]);
  }
  const int64_t at = sample * p.elements + e;
  if (p.philox) {
    const T weight = step_coefficient<T>(p, sample, C::noise);
#pragma unroll
    for (int k = 0; k < W; k += 4) add_normals(p, (at + k) / 4, weight, sum + k);
  }

  // store
  store_group(static_cast<X*>(p.sample) + at, first, last, sum);
  if (p.converted) store_group(static_cast<X*>(p.converted) + at, first, last, other);
  if (!p.next_input) return;
#pragma unroll
  for (int k = 0; k < W; k++) sum[k] = w.next_scale * sum[k];
  if constexpr (sizeof(X) == 8) {
    store_group(static_cast<double*>(p.next_input) + at, first, last, sum);
  } else if (p.next_type == DType::f32) {
    store_group(static_cast<float*>(p.next_input) + at, first, last, sum);
  } else if (p.next_type == DType::bf16) {
    store_group(static_cast<bfloat16*>(p.next_input) + at, first, last, sum);
  } else {
    store_group(static_cast<float16*>(p.next_input) + at, first, last, sum);
  }
}

// W: sampler_step_group of the types.
template <class X, class M, int W>
__global__ void sampler_step_kernel(const SamplerStepParams p) {
  const int64_t groups = sampler_step_groups(p, W), total = p.batch * groups;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; g < total;
       g += stride) {
    const int64_t sample = g / groups;
    const int64_t e = (g - sample * groups) * W - sample * p.elements % W;
    const int first = e < 0 ? static_cast<int>(-e) : 0;
    const int last = p.elements - e < W ? static_cast<int>(p.elements - e) : W;
    if (first < last) step_group<X, M, W>(p, sample, e, first, last);
  }
}

template <class T>
__device__ __forceinline__ typename MagnitudeKey<T>::Key magnitude_key(T value) {
  typename MagnitudeKey<T>::Key key;
  memcpy(&key, &value, sizeof key);
  return key;
}
template <class T>
__device__ __forceinline__ T magnitude_of(typename MagnitudeKey<T>::Key key) {
  T value;
  memcpy(&value, &key, sizeof value);
  return value;
}

// The key of |D| of one element. It is made again in every pass rather than kept: x and the model
// outputs of one sample stay in the L2 cache.
template <class X, class M>
__device__ __forceinline__ typename MagnitudeKey<Arithmetic<X>>::Key data_key(
    const SamplerStepParams& p, const StepWeights<Arithmetic<X>>& w, int64_t sample, int64_t e) {
  using T = Arithmetic<X>;
  T model = T(0);
  for (int i = 0; i < p.model_count; i++) {
    const M* output = static_cast<const M*>(p.models[i].data) + sample * p.models[i].batch_stride;
    const T weight = step_coefficient<T>(p, sample, SamplerStepColumn::guidance + i);
    model = i == 0 ? weight * widen(output[e]) : fma(weight, widen(output[e]), model);
  }
  const X* x = static_cast<const X*>(p.x.data) + sample * p.x.batch_stride;
  return magnitude_key(abs(step_data(w, widen(x[e]), model)));
}

template <class State>
__device__ __forceinline__ State* shared_state() {
  extern __shared__ __align__(16) unsigned char suffuse_shared[];
  return reinterpret_cast<State*>(suffuse_shared);
}

// p.scales[sample] for sample = blockIdx.x: radix selection of the quantile of |D|, 8 bits a pass
// from the top.
template <class X, class M>
__global__ void sampler_step_scales_kernel(const SamplerStepParams p) {
  using T = Arithmetic<X>;
  using Key = typename MagnitudeKey<T>::Key;
  auto* state = shared_state<SelectionState<Key>>();
  const int64_t sample = blockIdx.x;
  const StepWeights<T> w = step_weights<T>(p, sample);
  const QuantileRank rank = quantile_rank(p.quantile, p.elements);
  if (threadIdx.x == 0) {
    state->has_nan = 0;
    state->less = 0;
    state->known = 0;
    state->next = ~Key(0);
  }

  // the digits of the key of that rank
  for (int shift = 8 * sizeof(Key) - 8; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += blockDim.x) state->counts[i] = 0;
    __syncthreads();
    const Key known = state->known,
              found = shift == 8 * sizeof(Key) - 8 ? Key(0) : ~Key(0) << (shift + 8);
    for (int64_t e = threadIdx.x; e < p.elements; e += blockDim.x) {
      const Key key = data_key<X, M>(p, w, sample, e);
      if (((key ^ known) & found) == 0) atomicAdd(&state->counts[key >> shift & 255], 1u);
      if (found == 0 && key > MagnitudeKey<T>::infinity) atomicAdd(&state->has_nan, 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t digit = 0, less = state->less;
      while (less + state->counts[digit] <= rank.below) less += state->counts[digit++];
      state->less = less;
      state->up_to = less + state->counts[digit];
      state->known = known | static_cast<Key>(digit) << shift;
    }
    __syncthreads();
  }

  // the entry after it, where that is another number
  const Key key = state->known;
  const bool last = rank.fraction == 0 || state->up_to > rank.below + 1;
  if (!last) {
    Key next = ~Key(0);
    for (int64_t e = threadIdx.x; e < p.elements; e += blockDim.x) {
      const Key candidate = data_key<X, M>(p, w, sample, e);
      next = candidate > key && candidate < next ? candidate : next;
    }
    atomicMin(&state->next, next);
  }
  __syncthreads();

  // the scale
  if (threadIdx.x == 0) {
    const T below = magnitude_of<T>(key), above = last ? below : magnitude_of<T>(state->next);
    const T scale = threshold_scale(below, above, rank.fraction, static_cast<T>(p.maximum));
    static_cast<T*>(p.scales)[sample] =
        state->has_nan ? magnitude_of<T>(MagnitudeKey<T>::infinity + 1) : scale;
  }
}

}  // namespace suffuse
