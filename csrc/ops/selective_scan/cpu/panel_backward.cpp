// selective_scan backward in panels, from the last to the first: the states are made again from
// what the panel began with, and the gradients of the states are a scan of their own, in which
// again each lane begins at zero. The symbols are those of backward.cpp.
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/panel_grad-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// Where dB and dC of some states go, and what they come from.
template <class N>
struct PanelStates {
  const N *a, *b, *c;
  N *carry, *grad_a;
  N *grad_b, *grad_c;              // constant
  N *sum_b, *sum_c;                // varying
  bool b_varies, c_varies, first;  // first: nothing has been added to the sums
};

// e of each run as if nothing came after it, and the product of the decays after each step.
template <int states, bool restarts, class V, class N>
SUFFUSE_INLINE void scan_gradients(const PanelGradWorkspace<N>& w, const Panel& panel,
                                   const PanelStates<N>& of) {
  V carry[states], product[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    carry[k] = zero<V>();
    product[k] = V(1);
  }
  for (int i = kRun<V> - 1; i >= 0; i--) {
    const int step = panel.step<V>(i), t = step * V::N;
    const V grad = load<V>(w.grad + t);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      const int at = k * static_cast<int>(kScanPanel) + t;
      const V c = load<V>(of.c + k * w.scan.c_state + step * w.scan.c_step);
      const V e = muladd(grad, c, carry[k]), factor = load<V>(w.scan.decay + at);
      store(w.e + at, e);
      store(w.scan.product + at, product[k]);
      carry[k] = e * factor;
      product[k] *= factor;
      if (restarts) {
        carry[k] = select(load<V>(w.scan.kept + t) > zero<V>(), carry[k], zero<V>());
      }
    }
  }
  join_runs<states, restarts, V>(w.begin, panel, true, of.carry, carry, product, of.carry);
}

template <class V, class N>
SUFFUSE_INLINE void add_to(N* sums, V x, bool first) {
  store(sums, first ? x : load<V>(sums) + x);
}

template <int states, bool restarts, class V, class N>
SUFFUSE_INLINE void states_of_panel_backward(const PanelGradWorkspace<N>& w, const Panel& panel,
                                             const PanelStates<N>& of) {
  constexpr int kRow = static_cast<int>(kScanPanel);
  scan_gradients<states, restarts, V>(w, panel, of);
  V grad_a[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) grad_a[k] = load<V>(of.grad_a + k * V::N);
  const int turn = panel.step<V>(1) - panel.step<V>(0);
  for (int i = 0; i < kRun<V>; i++) {
    const int step = panel.step<V>(i), t = step * V::N;
    const V delta = load<V>(w.scan.delta + t), grad = load<V>(w.grad + t);
    const V x = load<V>(w.scan.x + t);
    V to_x = load<V>(w.to_x + t), to_delta = load<V>(w.to_delta + t);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      const int at = k * kRow + t;
      const V alone = load<V>(w.e + at), product = load<V>(w.scan.product + at);
      V e = muladd(product, load<V>(w.begin + k * V::N), alone);
      if (restarts) e = select(product == zero<V>(), alone, e);
      const V to_b = e * x, to_c = grad * load<V>(w.scan.h + at);
      to_x = muladd(e, load<V>(of.b + k * w.scan.b_state + step * w.scan.b_step), to_x);
      V before = load<V>(i ? w.scan.h + at - turn * V::N : w.scan.begin + k * V::N);
      if (restarts) before = select(load<V>(w.scan.kept + t) > zero<V>(), before, zero<V>());
      const V through = e * load<V>(w.scan.decay + at) * before;
      to_delta = muladd(through, V(of.a[k]), to_delta);
      grad_a[k] = muladd(through, delta, grad_a[k]);
      add_to(of.b_varies ? of.sum_b + at : of.grad_b + k * V::N, to_b, of.b_varies && of.first);
      add_to(of.c_varies ? of.sum_c + at : of.grad_c + k * V::N, to_c, of.c_varies && of.first);
    }
    store(w.to_x + t, to_x);
    store(w.to_delta + t, to_delta);
  }
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) store(of.grad_a + k * V::N, grad_a[k]);
}

// All states of one channel of a panel.
template <class V, class N>
void channel_of_panel_backward(const SelectiveScanParams& p, const PanelGradWorkspace<N>& w,
                               const PanelUnit& at, const Panel& panel, int64_t row, bool unusual) {
  const int64_t matrix = row * at.states();
  const int64_t sums = (panel.index * p.states + at.first_state) * kScanPanel;
  for_panel_kind(unusual, p.sequence != nullptr, [&](auto any, auto restarts) {
    for_panel_states(at.states(), [&](auto states, int n) {
      constexpr int kStates = decltype(states)::value;
      constexpr bool kAny = decltype(any)::value, kRestarts = decltype(restarts)::value;
      const int64_t one = matrix + n, lanes = one * V::N, place = sums + n * kScanPanel;
      const PanelStates<N> of{w.scan.a + one,
                              w.scan.b + n * w.scan.b_state,
                              w.scan.c + n * w.scan.c_state,
                              w.carry + one,
                              w.grad_a + lanes,
                              w.grad_b + lanes,
                              w.grad_c + lanes,
                              w.sum_b + place,
                              w.sum_c + place,
                              p.b.varying,
                              p.c.varying,
                              row == 0};
      scan_panel<kStates, kAny, kRestarts, true, V>(w.scan, panel, of.a, of.b, of.c,
                                                    w.scan.state + one);
      states_of_panel_backward<kStates, kRestarts, V>(w, panel, of);
    });
  });
}

template <class V, class N>
void store_lane_sums(void* to, const SelectiveScanParams& p, const PanelUnit& at, const N* from) {
  for (int64_t d = at.first_channel; d < at.last_channel; d++) {
    N* const row = static_cast<N*>(to) + (at.batch * p.channels + d) * p.states;
    for (int n = at.first_state; n < at.last_state; n++, from += V::N) {
      row[n] = reduce_add(load<V>(from));
    }
  }
}

// dD and dbias of the channels from `first` on.
template <class V, class N>
void store_panel_channels(const SelectiveScanGradParams& g, const PanelGradWorkspace<N>& w,
                          int64_t batch, int64_t first, int64_t last) {
  const int64_t row = batch * g.forward.channels;
  for (int64_t d = first; d < last; d++) {
    const int64_t lanes = (d - first) * V::N;
    static_cast<N*>(g.sums_skip)[row + d] = reduce_add(load<V>(w.grad_skip + lanes));
    static_cast<N*>(g.sums_bias)[row + d] = reduce_add(load<V>(w.grad_bias + lanes));
  }
}

template <class V, class S, class N>
void panels_of_unit_backward(const SelectiveScanGradParams& g, const PanelUnit& at) {
  const SelectiveScanParams& p = g.forward;
  const PanelParts parts = scan_panel_parts(p);
  PanelGradWorkspace<N> w = cut_grad_panels<V, N>(p, at);
  const int64_t part = (at.batch * p.groups + at.group) * parts.channels + at.channels_part;
  const int64_t sums = part * scan_panel_sums_size(p);
  w.sum_b = static_cast<N*>(g.sums_b) + (p.b.varying ? sums : 0);
  w.sum_c = static_cast<N*>(g.sums_c) + (p.c.varying ? sums : 0);
  load_panel_states(w.carry, p, at, g.grad_last);
  const bool unusual = unusual_panels(p, w.scan, at);
  for (int64_t i = scan_panels(p) - 1; i >= 0; i--) {
    const Panel panel = panel_of_scan(p, i);
    if (p.b.varying) load_projection<V, S>(w.scan.b, p.b, at, panel);
    if (p.c.varying) load_projection<V, S>(w.scan.c, p.c, at, panel);
    if (p.sequence) load_restarts<V>(w.scan.kept, p, at.batch, panel);
    for (int64_t d = at.first_channel; d < at.last_channel; d++) {
      const int64_t row = d - at.first_channel;
      const N* const saved = panel_states<N>(p, at, d, i);
      for (int n = 0; n < at.states(); n++) w.scan.state[row * at.states() + n] = saved[n];
      prepare_panel<V, S>(g, w, at.batch, d, panel);
      spread_constant<V>(w.scan.b, p.b, p, at, d);
      spread_constant<V>(w.scan.c, p.c, p, at, d);
      channel_of_panel_backward<V>(p, w, at, panel, row, unusual);
      if (parts.states == 1) {
        finish_panel_backward<V, S>(g, w, row, at.batch, d, panel);
      } else {
        for (int r = 0; r < kLeftRows; r++) {
          leave_panel_row(p, at, d, kLeftRows, r, panel, w.left(r));
        }
      }
    }
  }
  store_panel_states(g.grad_initial, p, at, w.carry);
  store_lane_sums<V>(g.sums_a, p, at, w.grad_a);
  if (!p.b.varying) store_lane_sums<V>(g.sums_b, p, at, w.grad_b);
  if (!p.c.varying) store_lane_sums<V>(g.sums_c, p, at, w.grad_c);
  if (parts.states == 1) {
    store_panel_channels<V>(g, w, at.batch, at.first_channel, at.last_channel);
  }
}

// A channel's gradients from what all parts of the states have left.
template <class V, class S, class N>
void join_channel_backward(const SelectiveScanGradParams& g, int64_t batch, int64_t channel) {
  const SelectiveScanParams& p = g.forward;
  const int64_t group = channel / (p.channels / p.groups);
  const PanelGradWorkspace<N> w =
      cut_grad_panels<V, N>(p, {batch, group, 0, 0, channel, channel + 1, 0, 0});
  for (int64_t i = scan_panels(p) - 1; i >= 0; i--) {
    const Panel panel = panel_at(p, i);
    prepare_panel<V, S>(g, w, batch, channel, panel);
    for (int r = 0; r < kLeftRows; r++) {
      add_panel_parts<V>(w.left(r), p, batch, channel, kLeftRows, r, panel);
    }
    finish_panel_backward<V, S>(g, w, 0, batch, channel, panel);
  }
  store_panel_channels<V>(g, w, batch, channel, channel + 1);
}

// dB or dC of a panel from all parts of a group's channels.
template <class V, class S, class N>
void project_panel(const SelectiveScanParams& p, const void* sums, void* to, int64_t pair,
                   const Panel& panel) {
  const int64_t part = scan_panel_sums_size(p), parts = scan_panel_parts(p).channels;
  const N* from =
      static_cast<const N*>(sums) + pair * parts * part + panel.index * p.states * kScanPanel;
  alignas(64) N row[kScanPanel];
  for (int64_t n = 0; n < p.states; n++, from += kScanPanel) {
    for (int i = 0; i < kScanPanel; i += V::N) {
      V sum = load<V>(from + i);
      for (int64_t k = 1; k < parts; k++) sum += load<V>(from + k * part + i);
      store(row + i, sum);
    }
    S* const result = static_cast<S*>(to) + (pair * p.states + n) * p.length + panel.begin;
    store_panel<V>(result, row, panel.count);
  }
}

}  // namespace selective_scan

void selective_scan_panel_bwd_range(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      selective_scan::panels_of_unit_backward<V, S, N>(g,
                                                       selective_scan::panel_unit(g.forward, unit));
    }
  });
}

void selective_scan_panel_join_bwd_range(const SelectiveScanGradParams& g, int64_t begin,
                                         int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    const int64_t channels = g.forward.channels;
    for (int64_t unit = begin; unit < end; unit++) {
      selective_scan::join_channel_backward<V, S, N>(g, unit / channels, unit % channels);
    }
  });
}

void selective_scan_panel_project_range(const SelectiveScanGradParams& g, int64_t begin,
                                        int64_t end) {
  const SelectiveScanParams& p = g.forward;
  const int64_t panels = scan_panels(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t pair = unit / panels;
      const selective_scan::Panel panel = selective_scan::panel_at(p, unit % panels);
      if (p.b.varying) {
        selective_scan::project_panel<V, S, N>(p, g.sums_b, g.grad_b, pair, panel);
      }
      if (p.c.varying) {
        selective_scan::project_panel<V, S, N>(p, g.sums_c, g.grad_c, pair, panel);
      }
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
