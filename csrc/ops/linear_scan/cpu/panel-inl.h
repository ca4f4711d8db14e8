// Steps of adjacent channels: a panel of channels along time, a few steps at once; nothing is
// transposed.
#pragma once

#include "ops/linear_scan/cpu/kernel.h"
#include "ops/linear_scan/cpu/rows-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

// A panel's own numbers.
template <class N>
struct Panel {
  int64_t batch, channel, count;
  N *state, *decay;  // decay: a where it is the same at all steps
};

template <class V, class S>
SUFFUSE_INLINE V load_lanes(const S* p, int n) {
  return n == V::N ? load<V>(p) : load<V>(p, n);
}
template <class S, class V>
SUFFUSE_INLINE void store_lanes(S* p, V x, int n) {
  if (n == V::N) {
    store(p, x);
  } else {
    store(p, x, n);
  }
}

// kSteps steps, `order` of them taken before. first: a is 1.
template <class V, int kSteps, bool constant, class A, class S, class N>
SUFFUSE_INLINE void panel_steps(const LinearScanParams& p, const Panel<N>& panel, int64_t order,
                                bool first) {
  const Lanes at{panel.batch, panel.channel, 0};
  const A* a[kSteps] = {};
  const S* x[kSteps];
  S* h[kSteps];
  for (int i = 0; i < kSteps; i++) {
    const int64_t step = order + i, of_a = step - (p.lagged ? 1 : 0);
    const int64_t t = p.reverse ? p.length - 1 - step : step;
    if (!constant && !first) {
      a[i] = steps_of<const A, false>(p.a, at, p.reverse ? p.length - 1 - of_a : of_a);
    }
    x[i] = steps_of<const S, false>(p.x, at, t);
    h[i] = steps_of<S, false>(p.h, at, t);
  }
  for (int64_t c = 0; c < panel.count; c += V::N) {
    const int n = static_cast<int>(panel.count - c < V::N ? panel.count - c : V::N);
    // All is loaded before the first result is stored: where steps are whole pages apart, loads
    // from the place in a page that has just been stored to wait.
    V decay[kSteps], term[kSteps];
#pragma GCC unroll 4
    for (int i = 0; i < kSteps; i++) {
      decay[i] = first      ? V(1)
                 : constant ? load_lanes<V>(panel.decay + c, n)
                            : load_lanes<V>(a[i] + c, n);
      term[i] = load_lanes<V>(x[i] + c, n);
    }
    V state = load_lanes<V>(panel.state + c, n);
#pragma GCC unroll 4
    for (int i = 0; i < kSteps; i++) {
      state = muladd(decay[i], state, term[i]);
      store_lanes(h[i] + c, state, n);
    }
    store_lanes(panel.state + c, state, n);
  }
}

template <class V, bool constant, class A, class S, class N>
SUFFUSE_INLINE void panel_tile(const LinearScanParams& p, const Panel<N>& panel, int64_t order,
                               int count) {
  constexpr int kSteps = 4;
  const int64_t begin = p.reverse ? p.length - order - count : order;
  const uint64_t restarts = restarts_of(p, panel.batch, begin, count);
  for (int i = 0; i < count;) {
    const bool first = p.lagged && order + i == 0;
    if (!first && i + kSteps <= count && (restarts >> i & 0xf) == 0) {
      panel_steps<V, kSteps, constant, A, S>(p, panel, order + i, false);
      i += kSteps;
      continue;
    }
    if (restarts >> i & 1) {
      for (int64_t c = 0; c < panel.count; c++) panel.state[c] = 0;
    }
    panel_steps<V, 1, constant, A, S>(p, panel, order + i, first);
    i++;
  }
}

template <class V, class A, class S, class N, bool constant>
void scan_panel(const LinearScanParams& p, int64_t batch, int64_t channel, int64_t count) {
  constexpr int kTile = 64;
  alignas(64) N state[kLinearScanPanel], decay[kLinearScanPanel];
  const Panel<N> panel{batch, channel, count, state, decay};
  const int64_t row = batch * p.channels + channel;
  const int64_t end = p.reverse ? 0 : p.length - 1;  // the step that is taken last
  for (int64_t c = 0; c < count; c++) {
    const Lanes at{batch, channel + c, 1};
    state[c] = p.initial ? static_cast<const N*>(p.initial)[row + c] : N(0);
    // a of the last step, which is that of all steps if it is constant
    if (p.length > 0) store(decay + c, load<V>(steps_of<const A, false>(p.a, at, end), 1), 1);
  }
  for (int64_t order = 0; order < p.length; order += kTile) {
    const int64_t left = p.length - order;
    panel_tile<V, constant, A, S>(p, panel, order, static_cast<int>(left < kTile ? left : kTile));
  }
  for (int64_t c = 0; c < count; c++) {
    const bool times_a = p.lagged && p.length > 0;
    static_cast<N*>(p.last)[row + c] = times_a ? decay[c] * state[c] : state[c];
  }
}

}  // namespace linear_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
