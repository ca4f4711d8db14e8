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

// out of n steps, to be stored as S.
template <class S, int kWidth, class V, class In, class N>
SUFFUSE_INLINE V convolved(const In* window, int n, const RowTaps<kWidth, V, N>& taps,
                           bool with_silu, const N* reach) {
  V y = convolve<kWidth, V>(window, n, taps, reach);
  if (with_silu) y = silu_for<S>(y);
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
        for (int j = 0; j < kTogether; j++) y[j] = silu.value ? silu_for<S>(y[j]) : y[j];
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; j += 2) store_two(out + i + j * V::N, y[j], y[j + 1]);
      }
    });
  }
  for_vectors<V>(count - i, [&](int64_t j, int n) {
    const N* of_step = reach ? reach + i + j : nullptr;
    const V y = convolved<S, kWidth, V>(window + i + j, n, taps, with_silu, of_step);
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

// Steps of 16 bits are widened once for all taps, so many at a time that what a tap reads has left
// the store buffer, in the first cache.
constexpr int64_t kWidenedSteps = 1024;

template <class V, class S>
SUFFUSE_INLINE int64_t window_steps(int64_t past) {
  return past + (sizeof(S) == 2 ? kWidenedSteps : head_steps<V>(past));
}

// for_windows, or the same with all windows in `buffer`, of window_steps.
template <class V, class S, class N, class Fn>
SUFFUSE_INLINE void for_wide_windows(const CausalConv1dParams& p, int64_t batch, int64_t channel,
                                     int64_t begin, int64_t end, N* buffer, Fn fn) {
  if constexpr (sizeof(S) > 2) {
    for_windows<V, S>(p, batch, channel, begin, end, buffer, fn);
  } else {
    const int64_t past = p.width - 1;
    for (int64_t t = begin; t < end; t += kWidenedSteps) {
      const int64_t count = end - t < kWidenedSteps ? end - t : kWidenedSteps;
      load_window<V, S>(buffer, p, batch, channel, t - past, count + past);
      fn(buffer, t, count);
    }
  }
}

template <int kWidth, class V, class S, class N>
void rows_forward(const CausalConv1dParams& p, int64_t batch, int64_t first, int64_t last,
                  int64_t begin, int64_t end) {
  const int64_t steps = end - begin, window = window_steps<V, S>(p.width - 1);
  Scratch<N> scratch(Scratch<N>::bytes(window, steps));
  N* buffer = scratch.take(window);
  N* reach = p.sequence ? scratch.take(steps) : nullptr;
  if (reach) fill_reach(p, batch, begin, end, reach);
  for (int64_t channel = first; channel < last; channel++) {
    const RowTaps<kWidth, V, N> taps(p, channel);
    S* out = at<S>(p.out, batch, channel, 0);
    for_wide_windows<V, S>(p, batch, channel, begin, end, buffer,
                           [&](const auto* window, int64_t t, int64_t count) {
                             convolve_steps<kWidth, V>(window, out + t, count, taps, p.silu,
                                                       reach ? reach + t - begin : nullptr);
                           });
  }
}

}  // namespace causal_conv1d
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
