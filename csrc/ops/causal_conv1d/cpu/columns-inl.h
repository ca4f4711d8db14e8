// causal_conv1d where the channels of a step are adjacent: neighbouring channels on the lanes, a
// panel of them along time.
#pragma once

#include "ops/causal_conv1d/cpu/rows_backward-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

// A panel's own numbers, as rows of `width` channels.
template <class N>
struct PanelTaps {
  N *weight, *bias;  // [taps][panel], [panel]
  int64_t panel, width;

  // Numbers for both.
  static SUFFUSE_INLINE int64_t count(int64_t panel, int64_t width) { return (width + 1) * panel; }

  SUFFUSE_INLINE PanelTaps(const CausalConv1dParams& p, int64_t first, int64_t channels,
                           int64_t row, N* memory)
      : weight(memory), bias(memory + p.width * row), panel(row), width(p.width) {
    zero_all(memory, count(row, p.width));
    const N* from = static_cast<const N*>(p.weight) + first * p.width;
    for (int64_t c = 0; c < channels; c++) {
      for (int64_t k = 0; k < width; k++) weight[k * row + c] = from[c * width + k];
      if (p.bias) bias[c] = static_cast<const N*>(p.bias)[first + c];
    }
  }
};

// Where the steps of a panel lie.
template <class T>
struct Panel {
  T* data;
  int64_t stride;
  SUFFUSE_INLINE T* row(int64_t step) const { return data + step * stride; }
};

// z of kSteps steps of n channels; first_tap: those before it do not count.
template <int kWidth, int kSteps, class V, class In, class N>
SUFFUSE_INLINE void convolve_channels(const Panel<In>& window, int64_t c, int n,
                                      const PanelTaps<N>& taps, int64_t first_tap, V (&z)[kSteps]) {
#pragma GCC unroll 4
  for (int s = 0; s < kSteps; s++) z[s] = load<V>(taps.bias + c);
  const int64_t width = kWidth > 0 ? kWidth : taps.width;
#pragma GCC unroll 4
  for (int64_t k = kWidth > 0 ? 0 : first_tap; k < width; k++) {
    if (k < first_tap) continue;
    const V weight = load<V>(taps.weight + k * taps.panel + c);
#pragma GCC unroll 4
    for (int s = 0; s < kSteps; s++) {
      z[s] = muladd(weight, load_lanes<V>(window.row(k + s) + c, n), z[s]);
    }
  }
}

template <int kWidth, int kSteps, class V, class In, class S, class N>
SUFFUSE_INLINE void convolve_rows(const Panel<In>& window, const Panel<S>& out, int64_t channels,
                                  const PanelTaps<N>& taps, int64_t first_tap, bool with_silu) {
  for_vectors<V>(channels, [&](int64_t c, int n) {
    V z[kSteps];
    convolve_channels<kWidth, kSteps>(window, c, n, taps, first_tap, z);
#pragma GCC unroll 4
    for (int s = 0; s < kSteps; s++) {
      if (with_silu) z[s] = silu_for<S>(z[s]);
      if (first_tap > taps.width) z[s] = zero<V>();
      store_lanes(out.row(s) + c, z[s], n);
    }
  });
}

template <int kWidth, class V, class In, class S, class N>
SUFFUSE_INLINE void convolve_panel(const Panel<In>& window, const Panel<S>& out, int64_t steps,
                                   int64_t channels, const PanelTaps<N>& taps, bool with_silu,
                                   const N* reach) {
  constexpr int kSteps = 4;  // that share their taps, and some of their input
  int64_t t = 0;
  for (; !reach && t + kSteps <= steps; t += kSteps) {
    convolve_rows<kWidth, kSteps, V>(Panel<In>{window.row(t), window.stride},
                                     Panel<S>{out.row(t), out.stride}, channels, taps, 0,
                                     with_silu);
  }
  for (; t < steps; t++) {
    const int64_t first_tap = reach ? taps.width - 1 - static_cast<int64_t>(reach[t]) : 0;
    const bool padding = first_tap >= taps.width;
    convolve_rows<kWidth, 1, V>(Panel<In>{window.row(t), window.stride},
                                Panel<S>{out.row(t), out.stride}, channels, taps,
                                padding ? taps.width + 1 : first_tap, with_silu);
  }
}

// Steps [time, time + count) of the initial state (negative times) and x.
template <class V, class S, class N>
SUFFUSE_INLINE void load_panel(const Panel<N>& to, const CausalConv1dParams& p, int64_t batch,
                               int64_t first, int64_t channels, int64_t time, int64_t count) {
  for (int64_t t = 0; t < count; t++) {
    const int64_t old = time + t + p.width - 1;
    if (time + t >= 0) {
      copy_elements<V>(to.row(t), at<const S>(p.x, batch, first, time + t), channels);
    } else if (p.initial.data) {
      for (int64_t c = 0; c < channels; c++) {
        copy_element<V>(to.row(t) + c, at<const S>(p.initial, batch, first + c, old));
      }
    } else {
      zero_all(to.row(t), channels);
    }
  }
}

template <int kWidth, class V, class S, class N>
void columns_forward(const CausalConv1dParams& p, int64_t batch, int64_t first, int64_t last,
                     int64_t begin, int64_t end) {
  constexpr int64_t kPanel = kConvForward.panel;
  const int64_t past = p.width - 1, steps = end - begin, seen = steps < past ? steps : past;
  const int64_t channels = last - first, taps_count = PanelTaps<N>::count(kPanel, p.width);
  Scratch<N> scratch(Scratch<N>::bytes(taps_count, (seen + past) * kPanel, steps));
  const PanelTaps<N> taps(p, first, channels, kPanel, scratch.take(taps_count));
  const Panel<N> buffer = {scratch.take((seen + past) * kPanel), kPanel};
  N* reach = p.sequence ? scratch.take(steps) : nullptr;
  if (reach) fill_reach(p, batch, begin, end, reach);
  const auto out = [&](int64_t t) { return Panel<S>{at<S>(p.out, batch, first, t), p.out.time}; };
  const int64_t within = end < past ? end : past;
  int64_t t = begin;
  if (t < within) {  // the taps reach back before x
    load_panel<V, S>(buffer, p, batch, first, channels, t - past, within - t + past);
    convolve_panel<kWidth, V>(buffer, out(t), within - t, channels, taps, p.silu, reach);
    t = within;
  }
  const Panel<const S> x = {at<const S>(p.x, batch, first, t - past), p.x.time};
  convolve_panel<kWidth, V>(x, out(t), end - t, channels, taps, p.silu,
                            reach ? reach + t - begin : nullptr);
}

// Of one panel, between its chunks of steps.
template <class N>
struct PanelGradient {
  Panel<N> x, grad;  // width - 1 steps that were, and a chunk
  Panel<N> sums;     // [width + 1]
  N* reach;          // of the steps of grad, or null
};

// The gradient of z, in place of that of out, and what it adds to those of taps and bias.
template <int kWidth, class V, class N>
SUFFUSE_INLINE void slope_panel(const PanelGradient<N>& t, int64_t steps, int64_t c,
                                const PanelTaps<N>& taps, bool with_silu) {
  const int64_t past = taps.width - 1, width = kWidth > 0 ? kWidth : taps.width;
  V bias = load<V>(t.sums.row(taps.width) + c);
  TapSums<kWidth, V, N> weights(t.sums.row(0) + c, t.sums.stride);
  for (int64_t i = 0; i < steps; i++) {
    N* grad = t.grad.row(past + i) + c;
    const int64_t first_tap = t.reach ? past - static_cast<int64_t>(t.reach[past + i]) : 0;
    V g = load<V>(grad);
    if (first_tap > past) g = zero<V>();
    const Panel<N> window = {t.x.row(i), t.x.stride};
    if (with_silu && first_tap <= past) {
      V z[1];
      convolve_channels<kWidth, 1>(window, c, V::N, taps, first_tap, z);
      g *= silu_slope(z[0]);
    }
    store(grad, g);
    bias += g;
#pragma GCC unroll 4
    for (int64_t k = kWidth > 0 ? 0 : first_tap; k < width; k++) {
      if (k < first_tap) continue;
      weights.set(k, muladd(g, load<V>(window.row(k) + c), weights.get(k)));
    }
  }
  store(t.sums.row(taps.width) + c, bias);
}

// The gradients of the inputs [time, time + count), the initial state's included.
template <int kWidth, class V, class S, class N>
SUFFUSE_INLINE void store_panel_gradient(const CausalConv1dGradParams& g, int64_t batch,
                                         int64_t first, int64_t channels, int64_t time,
                                         int64_t count, const PanelTaps<N>& taps,
                                         const PanelGradient<N>& t) {
  for (int64_t i = 0; i < count; i++) {
    for_vectors<V>(channels, [&](int64_t c, int n) {
      V sum = zero<V>();
      const int64_t width = kWidth > 0 ? kWidth : taps.width;
#pragma GCC unroll 4
      for (int64_t lag = 0; lag < width; lag++) {
        if (t.reach && static_cast<N>(lag) > t.reach[i + lag]) continue;
        const V weight = load<V>(taps.weight + (taps.width - 1 - lag) * taps.panel + c);
        sum = muladd(weight, load<V>(t.grad.row(i + lag) + c), sum);
      }
      if (time + i >= 0) return store_lanes(at<S>(g.grad_x, batch, first + c, time + i), sum, n);
      if (!g.grad_initial.data) return;
      alignas(64) N lanes[V::N];
      store(lanes, sum);
      for (int k = 0; k < n; k++) {
        S* to = at<S>(g.grad_initial, batch, first + c + k, time + i + taps.width - 1);
        store(to, load<V>(lanes + k, 1), 1);
      }
    });
  }
}

template <class N>
SUFFUSE_INLINE void move_steps(const Panel<N>& panel, int64_t from, int64_t count) {
  __builtin_memmove(panel.data, panel.row(from),
                    static_cast<size_t>(count * panel.stride) * sizeof(N));
}

template <int kWidth, class V, class S, class N>
void columns_backward(const CausalConv1dGradParams& g, int64_t batch, int64_t first, int64_t last) {
  constexpr int64_t kPanel = kConvBackward.panel, kSteps = kConvBackward.panel_steps;
  const CausalConv1dParams& p = g.forward;
  const int64_t past = p.width - 1, channels = last - first;
  const int64_t taps_count = PanelTaps<N>::count(kPanel, p.width);
  const int64_t steps_count = (2 * past + kSteps) * kPanel, reach_count = 2 * past + kSteps;
  Scratch<N> scratch(
      Scratch<N>::bytes(taps_count, steps_count, steps_count, taps_count, reach_count));
  const PanelTaps<N> taps(p, first, channels, kPanel, scratch.take(taps_count));
  const PanelGradient<N> t = {{scratch.take(steps_count), kPanel},
                              {scratch.take(steps_count), kPanel},
                              {scratch.take(taps_count), kPanel},
                              p.sequence ? scratch.take(reach_count) : nullptr};
  zero_all(t.x.data, steps_count);
  zero_all(t.grad.data, steps_count);
  zero_all(t.sums.data, taps_count);
  if (t.reach) zero_all(t.reach, reach_count);
  load_panel<V, S>(t.x, p, batch, first, channels, -past, past);
  for (int64_t begin = 0; begin < p.length; begin += kSteps) {
    const int64_t steps = p.length - begin < kSteps ? p.length - begin : kSteps;
    load_panel<V, S>(Panel<N>{t.x.row(past), kPanel}, p, batch, first, channels, begin, steps);
    for (int64_t i = 0; i < steps; i++) {
      copy_elements<V>(t.grad.row(past + i), at<const S>(g.grad_out, batch, first, begin + i),
                       channels);
    }
    if (t.reach) fill_reach(p, batch, begin, begin + steps, t.reach + past);
    for (int64_t c = 0; c < channels; c += V::N) {
      slope_panel<kWidth, V>(t, steps, c, taps, p.silu);
    }
    store_panel_gradient<kWidth, V, S>(g, batch, first, channels, begin - past, steps, taps, t);
    move_steps(t.x, steps, past);
    move_steps(t.grad, steps, past);
    if (t.reach) __builtin_memmove(t.reach, t.reach + steps, static_cast<size_t>(past) * sizeof(N));
  }
  zero_all(t.grad.row(past), past * kPanel);
  if (t.reach) zero_all(t.reach + past, past);
  store_panel_gradient<kWidth, V, S>(g, batch, first, channels, p.length - past, past, taps, t);
  N* partial = static_cast<N*>(g.partials) + (batch * p.channels + first) * (p.width + 1);
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t k = 0; k <= p.width; k++) partial[c * (p.width + 1) + k] = t.sums.row(k)[c];
  }
}

}  // namespace causal_conv1d
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
