// Dynamic thresholding on CUDA: the quantile of |D| in each sample, one block a sample, by radix
// selection on the bit patterns.
#pragma once

#include "cuda/launch_shape.h"
#include "cuda/reduce.cuh"
#include "cuda/scan.cuh"
#include "ops/sampler_step/cuda/operands.cuh"

namespace suffuse {

struct SelectionShape {
  static constexpr int kThreads = 512;
  static constexpr int kBinsPerThread = 4;
  static constexpr int kDigitBits = 11;  // of a key that one pass looks at
  static constexpr int kDigits = 1 << kDigitBits;
  static_assert(kThreads * kBinsPerThread == kDigits);
};

// What the threads of a block share while they select.
template <class Key>
struct Selection {
  uint32_t counts[SelectionShape::kDigits];
  typename BlockScan<uint32_t, Sum<uint32_t>>::Shared scan;
  typename BlockReduce<Key>::Shared reduce;
  uint32_t digit, below, count;  // the wanted digit, entries below it, entries with it
  uint32_t has_nan;
};

inline LaunchShape sampler_step_scales_shape(const SamplerStepParams& p) {
  const size_t shared = p.x_type == DType::f64 ? sizeof(Selection<MagnitudeKey<double>::Key>)
                                               : sizeof(Selection<MagnitudeKey<float>::Key>);
  return {p.batch, SelectionShape::kThreads, static_cast<int32_t>(shared)};
}

template <class T>
SUFFUSE_DEVICE typename MagnitudeKey<T>::Key magnitude_key(T value) {
  typename MagnitudeKey<T>::Key key;
  memcpy(&key, &value, sizeof key);
  return key;
}
template <class T>
SUFFUSE_DEVICE T magnitude_of(typename MagnitudeKey<T>::Key key) {
  T value;
  memcpy(&value, &key, sizeof value);
  return value;
}

// Calls fn(key, there) for |D| of every element of a sample, in all threads together: `there` is
// false in those that have none at that time. The keys are made again in every pass rather than
// kept: x and the model outputs of one sample stay in the L2 cache.
template <class X, class M, int W, class Fn>
SUFFUSE_DEVICE void for_each_key(const SamplerStepParams& p,
                                 const StepWeights<Arithmetic<X>>& weights, int64_t sample,
                                 Fn&& fn) {
  using T = Arithmetic<X>;
  const int64_t groups = groups_of_sample(p.batch, p.elements, W);
  for (int64_t start = 0; start < groups; start += blockDim.x) {
    const Group group = group_at<W>(p.elements, sample, start + threadIdx.x);
    T x[W], model[W];
    load_data_operands<X, M>(p, sample, group, x, model);
#pragma unroll
    for (int k = 0; k < W; k++) {
      const T data = step_data(weights, x[k], model[k]);
      fn(magnitude_key(abs(data)), k >= group.first && k < group.last);
    }
  }
}

// Adds one to the bin of each lane that has a number. The lanes that share the first one's bin are
// counted at once: where a clip makes most numbers equal, they would queue for one address.
SUFFUSE_DEVICE void count_digit(uint32_t* counts, uint32_t digit, bool there) {
  constexpr uint32_t kAll = 0xffffffffu;
  const uint32_t lanes = __ballot_sync(kAll, there);
  if (lanes == 0) return;
  const int first = __ffs(static_cast<int>(lanes)) - 1;
  const uint32_t common = __shfl_sync(kAll, digit, first);
  const uint32_t same = __ballot_sync(kAll, there && digit == common);
  if (static_cast<int>(gpu::lane()) == first) {
    atomicAdd(&counts[common], static_cast<uint32_t>(__popc(same)));
  } else if (there && digit != common) {
    atomicAdd(&counts[digit], 1u);
  }
}

// Finds the digit that the entry of a rank has, from counts. `scan`: of the block.
template <class Key, class Scan>
SUFFUSE_DEVICE void find_digit(Selection<Key>& state, Scan& scan, uint32_t rank) {
  const int first = threadIdx.x * SelectionShape::kBinsPerThread;
  const uint4 bins = gpu::load_vector<uint4>(&state.counts[first]);
  const uint32_t counts[] = {bins.x, bins.y, bins.z, bins.w};
  uint32_t below = scan(bins.x + bins.y + bins.z + bins.w).before;
#pragma unroll
  for (int k = 0; k < SelectionShape::kBinsPerThread; k++) {
    if (below <= rank && rank < below + counts[k]) {  // in one bin of the block
      state.digit = first + k;
      state.below = below;
      state.count = counts[k];
    }
    below += counts[k];
  }
}

template <class Key>
struct Selected {
  Key key;        // of the wanted rank
  bool repeated;  // so has the rank after it
};

// The key of a rank in ascending order. state.has_nan is right afterwards.
template <class X, class M, int W, class Key>
SUFFUSE_DEVICE Selected<Key> select_rank(const SamplerStepParams& p,
                                         const StepWeights<Arithmetic<X>>& weights, int64_t sample,
                                         uint32_t rank, Selection<Key>& state) {
  using Shape = SelectionShape;
  constexpr int kTop = 8 * sizeof(Key) - 1;  // without the sign
  constexpr Key kInfinity = MagnitudeKey<Arithmetic<X>>::infinity;
  BlockScan<uint32_t, Sum<uint32_t>> scan(state.scan);
  Key known = 0;  // the digits found so far
  if (threadIdx.x == 0) state.has_nan = 0;
  for (int top = kTop; top > 0;) {
    const int shift = top > Shape::kDigitBits ? top - Shape::kDigitBits : 0;
    gpu::store_vector(&state.counts[threadIdx.x * Shape::kBinsPerThread], uint4{0, 0, 0, 0});
    __syncthreads();
    bool nan = false;
    for_each_key<X, M, W>(p, weights, sample, [&](Key key, bool there) {
      const uint32_t digit = static_cast<uint32_t>(key >> shift) & (Shape::kDigits - 1);
      // The last digit may be shorter and then has bits of the one before: those are known.
      count_digit(state.counts, digit, there && ((key ^ known) >> top) == 0);
      nan = nan || (there && key > kInfinity);
    });
    if (nan) atomicOr(&state.has_nan, 1u);
    __syncthreads();
    find_digit(state, scan, rank);
    __syncthreads();
    const Key mask = (Key(1) << (top - shift)) - 1;
    known |= (static_cast<Key>(state.digit) & mask) << shift;
    rank -= state.below;
    top = shift;
  }
  return {known, rank + 1 < state.count};
}

// W: group_size of the wider of x and the model outputs.
template <class X, class M, int W>
__global__ void __launch_bounds__(SelectionShape::kThreads)
    sampler_step_scales_kernel(const SamplerStepParams p) {
  using T = Arithmetic<X>;
  using Key = typename MagnitudeKey<T>::Key;
  auto& state = gpu::shared<Selection<Key>>();
  const int64_t sample = blockIdx.x;
  const StepWeights<T> weights = step_weights<T>(p, sample);
  const QuantileRank rank = quantile_rank(p.quantile, p.elements);
  const Selected<Key> below =
      select_rank<X, M, W>(p, weights, sample, static_cast<uint32_t>(rank.below), state);

  // the entry after it, where that is another number
  Key above = below.key;
  if (rank.fraction != 0 && !below.repeated) {
    Key next = ~Key(0);
    for_each_key<X, M, W>(p, weights, sample, [&](Key key, bool there) {
      next = there && key > below.key && key < next ? key : next;
    });
    above = BlockReduce<Key>(state.reduce)(next, Min<Key>());
  }

  if (threadIdx.x == 0) {
    const T scale = threshold_scale(magnitude_of<T>(below.key), magnitude_of<T>(above),
                                    rank.fraction, static_cast<T>(p.maximum));
    static_cast<T*>(p.scales)[sample] =
        state.has_nan ? magnitude_of<T>(MagnitudeKey<T>::infinity + 1) : scale;
  }
}

}  // namespace suffuse
