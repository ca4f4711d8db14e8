// causal_conv1d on CUDA for any width and type, an element a thread: neighbouring threads have
// neighbouring elements, and what several of them need comes out of the caches. Besides, what all
// backward passes end with.
#pragma once

#include "cuda/reduce.cuh"
#include "ops/causal_conv1d/cuda/steps.cuh"

namespace suffuse {

// Elements of x are numbered as they lie in memory.
struct ConvElement {
  ConvPlace at;
  int64_t time;
};
SUFFUSE_DEVICE ConvElement conv_element(const CausalConv1dParams& p, int64_t index) {
  if (conv_along_time(p)) {
    const int64_t row = index / p.length;
    return {{row / p.channels, row % p.channels}, index - row * p.length};
  }
  const int64_t step = index / p.channels;
  return {{step / p.length, index - step * p.channels}, step % p.length};
}
SUFFUSE_DEVICE int64_t conv_index(const CausalConv1dParams& p, const ConvPlace& at, int64_t time) {
  return conv_along_time(p) ? (at.batch * p.channels + at.channel) * p.length + time
                            : (at.batch * p.length + time) * p.channels + at.channel;
}

// The thread's number in the launch.
SUFFUSE_DEVICE int64_t conv_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

template <class S>
SUFFUSE_DEVICE ConvNumber<S> conv_sum(const CausalConv1dParams& p, const ConvPlace& at,
                                      int64_t time, int64_t reach) {
  using T = ConvNumber<S>;
  T sum = conv_bias<T>(p, at.channel);
  for (int64_t lag = 0; lag <= reach; lag++) {
    sum += conv_weight<T>(p, at.channel, lag) * conv_input<S>(p, at, time - lag);
  }
  return sum;
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads)
    conv_any_forward_kernel(const CausalConv1dParams p) {
  const int64_t index = conv_thread();
  if (index >= p.batch * p.channels * p.length) return;
  const ConvElement element = conv_element(p, index);
  const int64_t reach = conv_reach(p, element.at.batch, element.time);
  ConvNumber<S> out = conv_sum<S>(p, element.at, element.time, reach);
  if (p.silu) out = conv_silu(out);
  if (reach < 0) out = 0;
  conv_row<S>(p.out, element.at)[element.time * p.out.time] = narrow<S>(out);
}

// The gradient of z.
template <class S>
SUFFUSE_DEVICE ConvNumber<S> conv_grad_z(const CausalConv1dGradParams& g, const ConvPlace& at,
                                         int64_t time) {
  using T = ConvNumber<S>;
  const CausalConv1dParams& p = g.forward;
  const int64_t reach = conv_reach(p, at.batch, time);
  if (reach < 0) return 0;
  const T grad = widen(conv_row<const S>(g.grad_out, at)[time * g.grad_out.time]);
  return p.silu ? grad * conv_slope(conv_sum<S>(p, at, time, reach)) : grad;
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads)
    conv_any_slope_kernel(const CausalConv1dGradParams g) {
  const CausalConv1dParams& p = g.forward;
  const int64_t index = conv_thread();
  if (index >= p.batch * p.channels * p.length) return;
  const ConvElement element = conv_element(p, index);
  static_cast<ConvNumber<S>*>(g.grad_z)[index] = conv_grad_z<S>(g, element.at, element.time);
}

// The gradient of x, or of the initial state where time < 0.
template <class S>
SUFFUSE_DEVICE ConvNumber<S> conv_grad_input(const CausalConv1dGradParams& g, const ConvPlace& at,
                                             int64_t time) {
  using T = ConvNumber<S>;
  const CausalConv1dParams& p = g.forward;
  const int32_t* sequence = p.sequence ? p.sequence + at.batch * p.length : nullptr;
  const int64_t first = time < 0 ? 0 : time;
  T sum = 0;
  for (int64_t t = first; t < p.length && t - time < p.width; t++) {
    if (sequence && t > first && sequence[t] != sequence[t - 1]) break;
    const T grad =
        g.grad_z ? static_cast<const T*>(g.grad_z)[conv_index(p, at, t)] : conv_grad_z<S>(g, at, t);
    sum += conv_weight<T>(p, at.channel, t - time) * grad;
  }
  return sum;
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads)
    conv_any_input_kernel(const CausalConv1dGradParams g) {
  const CausalConv1dParams& p = g.forward;
  const int64_t index = conv_thread();
  if (index >= p.batch * p.channels * p.length) return;
  const ConvElement element = conv_element(p, index);
  const auto grad = conv_grad_input<S>(g, element.at, element.time);
  conv_row<S>(g.grad_x, element.at)[element.time * g.grad_x.time] = narrow<S>(grad);
}

// After any of the backward kernels.
template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads)
    conv_initial_kernel(const CausalConv1dGradParams g) {
  const CausalConv1dParams& p = g.forward;
  const int64_t index = conv_thread(), past = p.width - 1;
  if (index >= p.batch * p.channels * past) return;
  const int64_t row = index / past, step = index - row * past;
  const ConvPlace at = {row / p.channels, row % p.channels};
  const auto grad = conv_grad_input<S>(g, at, step - past);
  conv_row<S>(g.grad_initial, at)[step * g.grad_initial.time] = narrow<S>(grad);
}

// What the steps first, first + stride ... before `end` add to the gradients of four lags.
template <class S>
SUFFUSE_DEVICE ConvSums<ConvNumber<S>> lag_sums(const CausalConv1dGradParams& g,
                                                const ConvPlace& at, int64_t first, int64_t stride,
                                                int64_t end, int64_t first_lag) {
  const CausalConv1dParams& p = g.forward;
  ConvSums<ConvNumber<S>> sums = {};
  for (int64_t time = first; time < end; time += stride) {
    const auto grad = static_cast<const ConvNumber<S>*>(g.grad_z)[conv_index(p, at, time)];
    const int64_t reach = conv_reach(p, at.batch, time);
    sums.bias += grad;
#pragma unroll
    for (int lag = 0; lag < kConvLags; lag++) {
      if (first_lag + lag > reach) continue;
      sums.lags[lag] += grad * conv_input<S>(p, at, time - first_lag - lag);
    }
  }
  return sums;
}

// Block b: channels b % blocks of piece b / blocks % pieces of a batch entry.
template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads)
    conv_any_sums_kernel(const CausalConv1dGradParams g, int64_t pieces, int64_t blocks) {
  using T = ConvNumber<S>;
  using Reduce = BlockReduce<ConvSums<T>>;
  Reduce reduce(gpu::shared<typename Reduce::Shared>());
  const CausalConv1dParams& p = g.forward;
  const int64_t block = blockIdx.x % blocks, row = blockIdx.x / blocks, batch = row / pieces;
  const int64_t begin = (row - batch * pieces) * ConvShape::kAnyTile;
  const int64_t end =
      begin + ConvShape::kAnyTile < p.length ? begin + ConvShape::kAnyTile : p.length;
  if (conv_along_time(p)) {  // the threads share a channel
    const ConvPlace at = {batch, block};
    for (int64_t lag = 0; lag < p.width; lag += kConvLags) {
      const auto mine = lag_sums<S>(g, at, begin + threadIdx.x, ConvShape::kAnyThreads, end, lag);
      store_conv_sums(g, reduce(mine, AddConvSums()), row, block, lag, threadIdx.x);
    }
    return;
  }
  const ConvPlace at = {batch, block * ConvShape::kAnyThreads + threadIdx.x};
  if (at.channel >= p.channels) return;
  for (int64_t lag = 0; lag < p.width; lag += kConvLags) {
    const auto sums = lag_sums<S>(g, at, begin, 1, end, lag);
#pragma unroll
    for (int i = 0; i <= kConvLags; i++) store_conv_sums(g, sums, row, at.channel, lag, i);
  }
}

template <class T>
struct ConvFinish {
  T sums[ConvShape::kSlices][ConvShape::kSlots];
};

// Adds the rows of partials, in a fixed order.
template <class T>
__global__ void __launch_bounds__(ConvShape::kFinishThreads)
    conv_finish_kernel(const CausalConv1dGradParams g) {
  using Shape = ConvShape;
  auto& shared = gpu::shared<ConvFinish<T>>();
  const CausalConv1dParams& p = g.forward;
  const int slice = threadIdx.x / Shape::kSlots, slot = threadIdx.x % Shape::kSlots;
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * Shape::kSlots + slot;
  const int64_t entries = conv_entries(p);
  T sum = 0;
  if (entry < entries) {
    for (int64_t row = slice; row < g.partial_rows; row += Shape::kSlices) {
      sum += static_cast<const T*>(g.partials)[row * entries + entry];
    }
  }
  shared.sums[slice][slot] = sum;
  __syncthreads();
  if (slice != 0 || entry >= entries) return;
  T total = 0;
  for (int s = 0; s < Shape::kSlices; s++) total += shared.sums[s][slot];
  const bool along_time = conv_along_time(p);
  const int64_t channel = along_time ? entry / (p.width + 1) : entry % p.channels;
  const int64_t tap = along_time ? entry % (p.width + 1) : entry / p.channels;
  if (tap < p.width) {
    static_cast<T*>(g.grad_weight)[channel * p.width + tap] = total;
  } else {
    static_cast<T*>(g.grad_bias)[channel] = total;
  }
}

}  // namespace suffuse
