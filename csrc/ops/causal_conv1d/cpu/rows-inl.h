// causal_conv1d where the steps of a channel are adjacent: neighbouring steps on the lanes, each
// tap a vector that starts one step later.
#pragma once

#include "ops/causal_conv1d/cpu/steps-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

// A row's own numbers: the taps as vectors where there are few of them.
template <int kWidth, class V, class N>
struct RowTaps {
  const N* weight;
  V bias, few[kWidth > 0 ? kWidth : 1];
  int64_t width;

  SUFFUSE_INLINE RowTaps(const CausalConv1dParams& p, int64_t channel)
      : weight(static_cast<const N*>(p.weight) + channel * p.width),
        bias(p.bias ? static_cast<const N*>(p.bias)[channel] : N(0)),
        width(p.width) {
#pragma GCC unroll 4
    for (int k = 0; k < kWidth; k++) few[k] = V(weight[k]);
  }
  SUFFUSE_INLINE V operator[](int64_t k) const { return kWidth > 0 ? few[k] : V(weight[k]); }
};

template <class V, class S>
SUFFUSE_INLINE V load_lanes(const S* p, int n) {
  return n == V::N ? load<V>(p) : load<V>(p, n);
}
template <class V, class S>
SUFFUSE_INLINE void store_lanes(S* p, V x, int n) {
  if (n == V::N) {
    store(p, x);
  } else {
    store(p, x, n);
  }
}

// The taps of n steps: calls tap(k, x) from the oldest to the present.
template <int kWidth, class V, class In, class Fn>
SUFFUSE_INLINE void for_taps(const In* window, int n, int64_t width, Fn tap) {
  if (kWidth > 0) {
#pragma GCC unroll 4
    for (int k = 0; k < kWidth; k++) tap(k, load_lanes<V>(window + k, n));
  } else {
    for (int64_t k = 0; k < width; k++) tap(k, load_lanes<V>(window + k, n));
  }
}

// z of n steps. reach: of the steps, or null.
template <int kWidth, class V, class In, class N>
SUFFUSE_INLINE V convolve(const In* window, int n, const RowTaps<kWidth, V, N>& taps,
                          const N* reach) {
  V z = taps.bias;
  if (!reach) {
    for_taps<kWidth, V>(window, n, taps.width, [&](int64_t k, V x) { z = muladd(taps[k], x, z); });
    return z;
  }
  const V back = load_lanes<V>(reach, n);
  for_taps<kWidth, V>(window, n, taps.width, [&](int64_t k, V x) {
    const V lag(static_cast<N>(taps.width - 1 - k));
    z = select(lag <= back, muladd(taps[k], x, z), z);
  });
  return z;
}

// Calls fn(i, n) for vectors of n steps, the last one perhaps shorter.
template <class V, class Fn>
SUFFUSE_INLINE void for_vectors(int64_t count, Fn fn) {
  int64_t i = 0;
  for (; i + V::N <= count; i += V::N) fn(i, V::N);
  if (i < count) fn(i, static_cast<int>(count - i));
}

// out of n steps from `from` on.
template <int kWidth, class V, class In, class N>
SUFFUSE_INLINE V convolved(const In* window, int n, const RowTaps<kWidth, V, N>& taps,
                           bool with_silu, const N* reach) {
  V y = convolve<kWidth, V>(window, n, taps, reach);
  if (with_silu) y = silu_fast(y);
  return reach ? select(zero<V>() <= load_lanes<V>(reach, n), y, zero<V>()) : y;
}

// Calls fn with the flag as a compile-time constant.
template <class Fn>
SUFFUSE_INLINE void for_flag(bool flag, Fn fn) {
  if (flag) {
    fn(std::true_type());
  } else {
    fn(std::false_type());
  }
}

// out of `count` steps; window: from the oldest tap of the first on.
template <int kWidth, class V, class In, class S, class N>
SUFFUSE_INLINE void convolve_steps(const In* window, S* out, int64_t count,
                                   const RowTaps<kWidth, V, N>& taps, bool with_silu,
                                   const N* reach) {
  // Several vectors are loaded before the first is stored: the taps reach back into what a row of
  // out at the same place of another page has just been given, and such loads wait for the store.
  constexpr int kTogether = 4;
  int64_t i = 0;
  if (!reach) {
    for_flag(with_silu, [&](auto silu) {
      for (; i + kTogether * V::N <= count; i += kTogether * V::N) {
        V y[kTogether];
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; j++) {
          y[j] = convolve<kWidth, V>(window + i + j * V::N, V::N, taps, reach);
        }
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; j++) {
          store(out + i + j * V::N, silu.value ? silu_fast(y[j]) : y[j]);
        }
      }
    });
  }
  for_vectors<V>(count - i, [&](int64_t j, int n) {
    const N* of_step = reach ? reach + i + j : nullptr;
    const V y = convolved<kWidth, V>(window + i + j, n, taps, with_silu, of_step);
    store_lanes(out + i + j, y, n);
  });
}

// Steps [time, time + count) of the initial state (negative times) and x.
template <class V, class S, class N>
SUFFUSE_INLINE void load_window(N* to, const CausalConv1dParams& p, int64_t batch, int64_t channel,
                                int64_t time, int64_t count) {
  int64_t i = 0;
  for (; i < count && time + i < 0; i++) {
    to[i] = 0;
    if (!p.initial.data) continue;
    copy_element<V>(to + i, at<const S>(p.initial, batch, channel, time + i + p.width - 1));
  }
  copy_elements<V>(to + i, at<const S>(p.x, batch, channel, time + i), count - i);
}

// The steps of which the taps reach back before x, in whole vectors.
template <class V>
SUFFUSE_INLINE int64_t head_steps(int64_t past) {
  return (past + V::N - 1) / V::N * V::N;
}

// Calls fn(window, first, count) for the steps [begin, end): from `buffer`, of width - 1 +
// head_steps, for those of the head, from x itself for the others.
template <class V, class S, class N, class Fn>
SUFFUSE_INLINE void for_windows(const CausalConv1dParams& p, int64_t batch, int64_t channel,
                                int64_t begin, int64_t end, N* buffer, Fn fn) {
  const int64_t past = p.width - 1, head = head_steps<V>(past), within = end < head ? end : head;
  if (begin < within) {
    load_window<V, S>(buffer, p, batch, channel, begin - past, within - begin + past);
    fn(buffer, begin, within - begin);
    begin = within;
  }
  if (begin < end) fn(at<const S>(p.x, batch, channel, begin - past), begin, end - begin);
}

template <int kWidth, class V, class S, class N>
void rows_forward(const CausalConv1dParams& p, int64_t batch, int64_t first, int64_t last,
                  int64_t begin, int64_t end) {
  const int64_t past = p.width - 1, steps = end - begin, window = head_steps<V>(past) + past;
  Scratch<N> scratch(Scratch<N>::bytes(window, steps));
  N* buffer = scratch.take(window);
  N* reach = p.sequence ? scratch.take(steps) : nullptr;
  if (reach) fill_reach(p, batch, begin, end, reach);
  for (int64_t channel = first; channel < last; channel++) {
    const RowTaps<kWidth, V, N> taps(p, channel);
    S* out = at<S>(p.out, batch, channel, 0);
    for_windows<V, S>(p, batch, channel, begin, end, buffer,
                      [&](const auto* window, int64_t t, int64_t count) {
                        convolve_steps<kWidth, V>(window, out + t, count, taps, p.silu,
                                                  reach ? reach + t - begin : nullptr);
                      });
  }
}

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
