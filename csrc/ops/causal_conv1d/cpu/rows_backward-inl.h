// The gradients of causal_conv1d where the steps of a channel are adjacent.
#pragma once

#include "ops/causal_conv1d/cpu/rows-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

// Sums of taps: in registers where there are few of them, else in memory [taps][stride].
template <int kWidth, class V, class N>
class TapSums {
 public:
  SUFFUSE_INLINE TapSums(N* memory, int64_t stride) : memory_(memory), stride_(stride) {
#pragma GCC unroll 4
    for (int k = 0; k < kWidth; k++) few_[k] = load<V>(memory + k * stride);
  }
  SUFFUSE_INLINE V get(int64_t k) const {
    return kWidth > 0 ? few_[k] : load<V>(memory_ + k * stride_);
  }
  SUFFUSE_INLINE void set(int64_t k, V sum) {
    if (kWidth > 0) {
      few_[k] = sum;
    } else {
      store(memory_ + k * stride_, sum);
    }
  }
  SUFFUSE_INLINE ~TapSums() {
#pragma GCC unroll 4
    for (int k = 0; k < kWidth; k++) store(memory_ + k * stride_, few_[k]);
  }

 private:
  N* memory_;
  int64_t stride_;
  V few_[kWidth > 0 ? kWidth : 1];
};

// Of one row, between its chunks.
template <class N>
struct RowGradient {
  N* grad;  // of z: width - 1 steps that were, a chunk, width - 1 zeros behind the last
  N* sums;  // [width + 1][lanes]: the gradients of the taps and the bias
};

// The gradient of z at `count` steps, and what they add to those of taps and bias.
template <int kWidth, class V, class In, class S, class N>
SUFFUSE_INLINE void slope_steps(const In* window, const S* grad_out, int64_t count,
                                const RowTaps<kWidth, V, N>& taps, bool with_silu, const N* reach,
                                N* grad, N* sums) {
  V bias = load<V>(sums + taps.width * V::N);
  TapSums<kWidth, V, N> weights(sums, V::N);
  for_vectors<V>(count, [&](int64_t i, int n) {
    const N* of_step = reach ? reach + i : nullptr;
    V g = load_lanes<V>(grad_out + i, n);
    if (with_silu) g *= silu_slope(convolve<kWidth, V>(window + i, n, taps, of_step));
    if (reach) g = select(zero<V>() <= load_lanes<V>(of_step, n), g, zero<V>());
    g = select(first<V>(n), g, zero<V>());
    store(grad + i, g);
    bias += g;
    for_taps<kWidth, V>(window + i, n, taps.width, [&](int64_t k, V x) {
      V more = muladd(g, x, weights.get(k));
      if (reach) {
        const V lag(static_cast<N>(taps.width - 1 - k));
        more = select(lag <= load_lanes<V>(of_step, n), more, weights.get(k));
      }
      weights.set(k, more);
    });
  });
  store(sums + taps.width * V::N, bias);
}

// The gradient of x at `count` steps from those of z at these and the following ones.
template <int kWidth, class V, class S, class N>
SUFFUSE_INLINE void input_steps(const N* grad, S* out, int64_t count,
                                const RowTaps<kWidth, V, N>& taps, const N* reach) {
  for_vectors<V>(count, [&](int64_t i, int n) {
    V sum = zero<V>();
    for_taps<kWidth, V>(grad + i, n, taps.width, [&](int64_t lag, V g) {
      const V more = muladd(taps[taps.width - 1 - lag], g, sum);
      sum = reach ? select(V(static_cast<N>(lag)) <= load_lanes<V>(reach + i + lag, n), more, sum)
                  : more;
    });
    store_lanes(out + i, sum, n);
  });
}

// The gradients of the inputs [time, time + count), the initial state's included; reach: of step 0,
// with width - 1 more on both sides of the row.
template <int kWidth, class V, class S, class N>
SUFFUSE_INLINE void store_input_gradient(const CausalConv1dGradParams& g, int64_t batch,
                                         int64_t channel, int64_t time, int64_t count,
                                         const RowTaps<kWidth, V, N>& taps, const N* grad,
                                         const N* reach) {
  int64_t i = 0;
  for (; i < count && time + i < 0; i++) {
    if (!g.grad_initial.data) continue;
    S* to = at<S>(g.grad_initial, batch, channel, time + i + taps.width - 1);
    input_steps<kWidth, V>(grad + i, to, 1, taps, reach ? reach + time + i : nullptr);
  }
  input_steps<kWidth, V>(grad + i, at<S>(g.grad_x, batch, channel, time + i), count - i, taps,
                         reach ? reach + time + i : nullptr);
}

template <int kWidth, class V, class S, class N>
SUFFUSE_INLINE void row_backward(const CausalConv1dGradParams& g, int64_t batch, int64_t channel,
                                 const RowGradient<N>& row, N* buffer, const N* reach) {
  const CausalConv1dParams& p = g.forward;
  const int64_t past = p.width - 1;
  const RowTaps<kWidth, V, N> taps(p, channel);
  const S* grad_out = at<const S>(g.grad_out, batch, channel, 0);
  zero_all(row.grad, past);
  zero_all(row.sums, (p.width + 1) * V::N);
  for (int64_t begin = 0; begin < p.length; begin += kConvBackward.row_steps) {
    const int64_t left = p.length - begin;
    const int64_t steps = left < kConvBackward.row_steps ? left : kConvBackward.row_steps;
    for_windows<V, S>(p, batch, channel, begin, begin + steps, buffer,
                      [&](const auto* window, int64_t t, int64_t count) {
                        slope_steps<kWidth, V>(window, grad_out + t, count, taps, p.silu,
                                               reach ? reach + t : nullptr,
                                               row.grad + past + t - begin, row.sums);
                      });
    store_input_gradient<kWidth, V, S>(g, batch, channel, begin - past, steps, taps, row.grad,
                                       reach);
    __builtin_memmove(row.grad, row.grad + steps, static_cast<size_t>(past) * sizeof(N));
  }
  zero_all(row.grad + past, past + V::N);
  store_input_gradient<kWidth, V, S>(g, batch, channel, p.length - past, past, taps, row.grad,
                                     reach);
  N* partial = static_cast<N*>(g.partials) + (batch * p.channels + channel) * (p.width + 1);
  for (int64_t k = 0; k <= p.width; k++) partial[k] = reduce_add(load<V>(row.sums + k * V::N));
}

template <int kWidth, class V, class S, class N>
void rows_backward(const CausalConv1dGradParams& g, int64_t batch, int64_t first, int64_t last) {
  const CausalConv1dParams& p = g.forward;
  const int64_t past = p.width - 1, sums = (p.width + 1) * V::N;
  const int64_t grads = kConvBackward.row_steps + 2 * past + V::N;
  const int64_t around = p.sequence ? p.length + 2 * past + V::N : 0;
  const int64_t window = head_steps<V>(past) + past;
  Scratch<N> scratch(Scratch<N>::bytes(grads, sums, window, around));
  const RowGradient<N> row = {scratch.take(grads), scratch.take(sums)};
  N *buffer = scratch.take(window), *reach = nullptr;
  if (p.sequence) {
    N* all = scratch.take(around);
    zero_all(all, around);
    reach = all + past;
    fill_reach(p, batch, 0, p.length, reach);
  }
  for (int64_t channel = first; channel < last; channel++) {
    row_backward<kWidth, V, S>(g, batch, channel, row, buffer, reach);
  }
}

}  // namespace causal_conv1d
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
