// selective_scan forward in panels: few channels, time on the lanes.
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/panel_scan-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// Skip, gate, and out.
template <class V, class S, class N>
SUFFUSE_INLINE void finish_panel(const SelectiveScanParams& p, const PanelWorkspace<N>& w,
                                 int64_t batch, int64_t channel, const Panel& panel) {
  if (p.skip) {
    const V skip(static_cast<const N*>(p.skip)[channel]);
    for (int i = 0; i < kScanPanel; i += V::N) {
      store(w.y + i, muladd(skip, load<V>(w.u + i), load<V>(w.y + i)));
    }
  }
  if (p.z.data) {
    load_panel<V>(w.x, panel_row<S>(p.z, batch, channel, panel), panel.count);
    for (int i = 0; i < kScanPanel; i += V::N) {
      store(w.y + i, load<V>(w.y + i) * silu_fast(load<V>(w.x + i)));
    }
  }
  const S* const to = panel_row<S>(dense_rows(p, p.out), batch, channel, panel);
  store_panel<V>(const_cast<S*>(to), w.y, panel.count);
}

template <class V, class N>
void scan_states_of_panel(const SelectiveScanParams& p, const PanelWorkspace<N>& w,
                          const PanelUnit& at, const Panel& panel, int64_t row, bool unusual) {
  const N* const a = w.a + row * at.states();
  N* const state = w.state + row * at.states();
  for_panel_kind(unusual, p.sequence != nullptr, [&](auto any, auto restarts) {
    for_panel_states(at.states(), [&](auto states, int n) {
      scan_panel<decltype(states)::value, decltype(any)::value, decltype(restarts)::value, false,
                 V>(w, panel, a + n, w.b + n * w.b_state, w.c + n * w.c_state, state + n);
    });
  });
}

template <class V, class S, class N>
void scan_panels_of_unit(const SelectiveScanParams& p, const PanelUnit& at) {
  PanelMemory<N> memory(
      selective_scan_scratch(panel_numbers<N>(p) * static_cast<int64_t>(sizeof(N))));
  const PanelWorkspace<N> w = cut_panels<V>(p, at, memory);
  const bool unusual = unusual_panels(p, w, at), alone = scan_panel_parts(p).states == 1;
  load_panel_states(w.state, p, at, p.initial);
  for (int64_t i = 0; i < scan_panels(p); i++) {
    const Panel panel = panel_of_scan(p, i);
    if (p.b.varying) load_projection<V, S>(w.b, p.b, at, panel);
    if (p.c.varying) load_projection<V, S>(w.c, p.c, at, panel);
    if (p.sequence) load_restarts<V>(w.kept, p, at.batch, panel);
    for (int64_t d = at.first_channel; d < at.last_channel; d++) {
      const int64_t row = d - at.first_channel;
      if (p.chunk_states) {
        N* const to = panel_states<N>(p, at, d, i);
        for (int n = 0; n < at.states(); n++) to[n] = w.state[row * at.states() + n];
      }
      load_panel_inputs<V, S, N>(p, w, nullptr, at.batch, d, panel);
      spread_constant<V>(w.b, p.b, p, at, d);
      spread_constant<V>(w.c, p.c, p, at, d);
      scan_states_of_panel<V>(p, w, at, panel, row, unusual);
      if (alone) {
        finish_panel<V, S>(p, w, at.batch, d, panel);
      } else {
        leave_panel_row(p, at, d, 1, 0, panel, w.y);
      }
    }
  }
  store_panel_states(p.last, p, at, w.state);
}

// The results of one panel of one channel from what all parts of the states have left.
template <class V, class S, class N>
void join_panel(const SelectiveScanParams& p, int64_t batch, int64_t channel, const Panel& panel) {
  alignas(64) N x[kScanPanel], u[kScanPanel], y[kScanPanel];
  PanelWorkspace<N> w{};
  w.x = x;
  w.u = u;
  w.y = y;
  load_panel<V>(u, panel_row<S>(p.u, batch, channel, panel), panel.count);
  for (int i = 0; i < kScanPanel; i += V::N) store(y + i, zero<V>());
  add_panel_parts<V>(y, p, batch, channel, 1, 0, panel);
  finish_panel<V, S>(p, w, batch, channel, panel);
}

}  // namespace selective_scan

void selective_scan_panel_fwd_range(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      selective_scan::scan_panels_of_unit<V, S, N>(p, selective_scan::panel_unit(p, unit));
    }
  });
}

void selective_scan_panel_join_range(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t panels = scan_panels(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t row = unit / panels;
      selective_scan::join_panel<V, S, N>(p, row / p.channels, row % p.channels,
                                          selective_scan::panel_at(p, unit % panels));
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
