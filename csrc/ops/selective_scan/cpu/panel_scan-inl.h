// The scan of a panel and its inputs. Each lane scans its run as if it began at zero; then, from
// lane to lane, what every run begins with is found, and what that adds is the product of the
// decays since. Infinite values do not survive such a product, so panels that have them are scanned
// one by one.
#pragma once

#include "ops/selective_scan/cpu/panel-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// The channel's delta', its derivative where asked for, and delta' u; steps behind the last leave
// the state as it is.
template <class V, class S, class N>
SUFFUSE_INLINE void load_panel_inputs(const SelectiveScanParams& p, const PanelWorkspace<N>& w,
                                      N* slope, int64_t batch, int64_t channel,
                                      const Panel& panel) {
  const V bias = p.bias ? V(static_cast<const N*>(p.bias)[channel]) : zero<V>();
  load_panel<V>(w.delta, panel_row<S>(p.delta, batch, channel, panel), panel.count);
  load_panel<V>(w.u, panel_row<S>(p.u, batch, channel, panel), panel.count);
  for (int i = 0; slope && p.softplus && i < kScanPanel; i += V::N) {
    store(slope + i, sigmoid_fast(load<V>(w.delta + i) + bias));
  }
  discretise(w.delta, kRun<V>, bias, p.softplus);
  for (int i = panel.count; i < kScanPanel; i++) w.delta[place_in_panel<V>(i)] = N(0);
  for (int i = 0; i < kScanPanel; i += V::N) {
    store(w.x + i, load<V>(w.u + i) * load<V>(w.delta + i));
    store(w.y + i, zero<V>());
  }
}

// Step by step, as it is written; leaves nothing to be added.
template <bool any, class V, class N>
__attribute__((noinline, cold)) void scan_one_by_one(const PanelWorkspace<N>& w, const Panel& panel,
                                                     const N* b, N a, int k, bool restarts,
                                                     N& state) {
  N *const h = w.h + k * kScanPanel, *const decays = w.product + k * kScanPanel;
  for (int i = 0; i < kScanPanel; i += V::N) {
    store(decays + i, decay<any>(load<V>(w.delta + i), V(a)));
  }
  for (int l = 0; l < V::N; l++) {
    const int lane = panel.lane<V>(l);
    w.begin[k * V::N + lane] = state;
    for (int i = 0; i < kRun<V>; i++) {
      const int step = panel.step<V>(i), at = step * V::N + lane;
      if (restarts && w.kept[at] == N(0)) state = N(0);
      state = decays[at] * state + w.x[at] * b[step * w.b_step + lane];
      h[at] = state;
    }
  }
  for (int i = 0; i < kScanPanel; i += V::N) store(decays + i, zero<V>());
}

// From lane to lane, or from the last to the first: what each run begins with, from what the first
// does. `to`: what the last ends with. Returns, as bits, where a number is infinite, or where the
// state restarts is none.
template <int states, bool restarts, class V, class N>
SUFFUSE_INLINE unsigned join_runs(N* begin, const Panel& panel, bool backwards, const N* from,
                                  const V (&found)[states], const V (&product)[states], N* to) {
  N ends[states * V::N], by[states * V::N], now[states];
  bool beyond[states] = {};
  for (int k = 0; k < states; k++) {
    store(ends + k * V::N, found[k]);
    store(by + k * V::N, product[k]);
    now[k] = from[k];
  }
  for (int l = 0; l < V::N; l++) {
    const int lane = panel.lane<V>(backwards ? V::N - 1 - l : l);
    for (int k = 0; k < states; k++) {
      const int at = k * V::N + lane;
      begin[at] = now[k];
      beyond[k] |= __builtin_isinf(now[k]) || __builtin_isinf(by[at]);
      if (restarts) beyond[k] |= __builtin_isnan(now[k]);
      // Backwards nothing goes one by one, and what is no number must stay in its sequence.
      const bool cut = restarts && backwards && by[at] == N(0);
      now[k] = cut ? ends[at] : by[at] * now[k] + ends[at];
    }
  }
  unsigned bits = 0;
  for (int k = 0; k < states; k++) {
    to[k] = now[k];
    bits |= static_cast<unsigned>(beyond[k]) << k;
  }
  return bits;
}

// `states` states of a panel from what it begins with, which becomes what it ends with; y += C h.
// `keep`: leaves h and the decays for the backward pass.
template <int states, bool any, bool restarts, bool keep, class V, class N>
SUFFUSE_INLINE void scan_panel(const PanelWorkspace<N>& w, const Panel& panel, const N* a,
                               const N* b, const N* c, N* state) {
  V h[states], product[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    h[k] = zero<V>();
    product[k] = V(1);
  }
  for (int i = 0; i < kRun<V>; i++) {
    const int step = panel.step<V>(i), t = step * V::N;
    const V delta = load<V>(w.delta + t), x = load<V>(w.x + t);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      V factor = decay<any>(delta, V(a[k]));
      if (restarts) {
        const auto kept = load<V>(w.kept + t) > zero<V>();
        factor = select(kept, factor, zero<V>());
        h[k] = select(kept, h[k], zero<V>());
      }
      h[k] = muladd(factor, h[k], x * load<V>(b + k * w.b_state + step * w.b_step));
      product[k] *= factor;
      store(w.h + k * kScanPanel + t, h[k]);
      store(w.product + k * kScanPanel + t, product[k]);
      if (keep) store(w.decay + k * kScanPanel + t, factor);
    }
  }
  N end[states];
  const unsigned beyond =
      join_runs<states, restarts, V>(w.begin, panel, false, state, h, product, end);
  for (int k = 0; k < states; k++) {
    if (__builtin_expect(beyond >> k & 1, 0)) {
      scan_one_by_one<any, V>(w, panel, b + k * w.b_state, a[k], k, restarts, state[k]);
    } else {
      state[k] = end[k];
    }
  }
  V begin[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    // What goes one by one has everything already, and infinity times 0 is none.
    begin[k] = beyond >> k & 1 ? zero<V>() : load<V>(w.begin + k * V::N);
  }
  for (int step = 0; step < kRun<V>; step++) {
    const int t = step * V::N;
    V even = load<V>(w.y + t), odd = zero<V>();
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      const V all = muladd(load<V>(w.product + k * kScanPanel + t), begin[k],
                           load<V>(w.h + k * kScanPanel + t));
      if (keep) store(w.h + k * kScanPanel + t, all);
      const V factor = load<V>(c + k * w.c_state + step * w.c_step);
      if (k % 2) {
        odd = muladd(all, factor, odd);
      } else {
        even = muladd(all, factor, even);
      }
    }
    store(w.y + t, even + odd);
  }
}

// Calls fn(any, restarts) with two compile-time booleans.
template <class Fn>
SUFFUSE_INLINE void for_panel_kind(bool any, bool restarts, Fn fn) {
  const auto with = [&](auto a) {
    if (restarts) {
      fn(a, std::true_type());
    } else {
      fn(a, std::false_type());
    }
  };
  if (any) {
    with(std::true_type());
  } else {
    with(std::false_type());
  }
}
// Calls fn(states, n) with a compile-time number of states for all of a part's, n from 0.
template <class Fn>
SUFFUSE_INLINE void for_panel_states(int states, Fn fn) {
  int n = 0;
  for (; n + kPanelStates <= states; n += kPanelStates) {
    fn(std::integral_constant<int, kPanelStates>(), n);
  }
  for (; n < states; n++) fn(std::integral_constant<int, 1>(), n);
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
