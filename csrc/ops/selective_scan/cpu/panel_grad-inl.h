// What the backward pass works with in a panel, its inputs and its results.
#pragma once

#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/panel_scan-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

constexpr int kLeftRows = 3;  // that parts of the states leave: y, d(delta' u), d(delta')

template <class N>
struct PanelGradWorkspace {
  PanelWorkspace<N> scan;
  N* carry;                                    // [channels][states]
  N *grad_a, *grad_b, *grad_c;                 // [channels][states][lanes]; constant B, C
  N *grad_skip, *grad_bias;                    // [channels][lanes]
  N *slope, *grad, *to_x, *to_delta, *factor;  // rows
  N *e, *begin;                                // of kPanelStates states
  N *sum_b, *sum_c;                            // varying: [panel, state, kScanPanel]
  SUFFUSE_INLINE N* left(int row) const { return row == 0 ? scan.y : row == 1 ? to_x : to_delta; }
};

template <class V, class N>
int64_t grad_numbers(const SelectiveScanParams& p) {
  const PanelParts parts = scan_panel_parts(p);
  const int64_t states = (p.states + parts.states - 1) / parts.states + kPanelStates;
  const int64_t channels = p.channels / p.groups / parts.channels + 1;
  return panel_numbers<N>(p) + channels * states * (1 + 3 * V::N) + 2 * channels * V::N +
         (5 + 2 * kPanelStates) * kScanPanel + 6 * kScanLanes;
}

template <class V, class N>
PanelGradWorkspace<N> cut_grad_panels(const SelectiveScanParams& p, const PanelUnit& at) {
  const int64_t numbers = grad_numbers<V, N>(p);
  PanelMemory<N> memory(selective_scan_scratch(numbers * static_cast<int64_t>(sizeof(N))));
  PanelGradWorkspace<N> w;
  w.scan = cut_panels<V>(p, at, memory);
  const int64_t channels = at.last_channel - at.first_channel, matrix = channels * at.states();
  w.carry = memory.cut(matrix);
  N** const sums[] = {&w.grad_a, &w.grad_b, &w.grad_c, &w.grad_skip, &w.grad_bias};
  for (int i = 0; i < 5; i++) {
    const int64_t size = (i < 3 ? matrix : channels) * V::N;
    *sums[i] = memory.cut(size);
    __builtin_memset(*sums[i], 0, static_cast<size_t>(size) * sizeof(N));
  }
  N** const rows[] = {&w.slope, &w.grad, &w.to_x, &w.to_delta, &w.factor};
  for (N** r : rows) *r = memory.cut(kScanPanel);
  w.e = memory.cut(kPanelStates * kScanPanel);
  w.begin = memory.cut(kPanelStates * kScanPanel);
  return w;
}

// The gradient of y, before the gate, and what dz is besides y.
template <class V, class S, class N>
SUFFUSE_INLINE void load_panel_gradient(const SelectiveScanGradParams& g,
                                        const PanelGradWorkspace<N>& w, int64_t batch,
                                        int64_t channel, const Panel& panel) {
  load_panel<V>(w.grad, panel_row<S>(g.grad_out, batch, channel, panel), panel.count);
  if (!g.forward.z.data) return;
  load_panel<V>(w.factor, panel_row<S>(g.forward.z, batch, channel, panel), panel.count);
  for (int i = 0; i < kScanPanel; i += V::N) {
    const V z = load<V>(w.factor + i), grad = load<V>(w.grad + i);
    const V s = sigmoid_fast(z), gate = z * s;
    store(w.factor + i, grad * muladd(gate, V(1) - s, s));
    store(w.grad + i, grad * gate);
  }
}

template <class V, class S, class N>
SUFFUSE_INLINE void prepare_panel(const SelectiveScanGradParams& g, const PanelGradWorkspace<N>& w,
                                  int64_t batch, int64_t channel, const Panel& panel) {
  load_panel_inputs<V, S>(g.forward, w.scan, w.slope, batch, channel, panel);
  load_panel_gradient<V, S>(g, w, batch, channel, panel);
  for (int i = 0; i < kScanPanel; i += V::N) {
    store(w.to_x + i, zero<V>());
    store(w.to_delta + i, zero<V>());
  }
}

// dD and dbias of the panel, and what its rows give back.
template <class V, class S, class N>
SUFFUSE_INLINE void finish_panel_backward(const SelectiveScanGradParams& g,
                                          const PanelGradWorkspace<N>& w, int64_t row,
                                          int64_t batch, int64_t channel, const Panel& panel) {
  const SelectiveScanParams& p = g.forward;
  const V skip = p.skip ? V(static_cast<const N*>(p.skip)[channel]) : zero<V>();
  V grad_skip = load<V>(w.grad_skip + row * V::N), grad_bias = load<V>(w.grad_bias + row * V::N);
  for (int i = panel.count; i < kScanPanel; i++) {
    w.to_delta[place_in_panel<V>(i)] = w.slope[place_in_panel<V>(i)] = N(0);
  }
  for (int i = 0; i < kScanPanel; i += V::N) {
    const V u = load<V>(w.scan.u + i), grad = load<V>(w.grad + i), to_x = load<V>(w.to_x + i);
    V to_delta = muladd(load<V>(w.to_delta + i), V(static_cast<N>(kLn2)), to_x * u);
    if (p.softplus) to_delta *= load<V>(w.slope + i);
    grad_skip = muladd(grad, u, grad_skip);
    grad_bias += to_delta;
    store(w.to_delta + i, to_delta);
    store(w.scan.u + i, muladd(to_x, load<V>(w.scan.delta + i), grad * skip));
    store(w.factor + i, load<V>(w.factor + i) * muladd(skip, u, load<V>(w.scan.y + i)));
  }
  store(w.grad_skip + row * V::N, grad_skip);
  store(w.grad_bias + row * V::N, grad_bias);
  const auto give = [&](void* to, const N* from) {
    const S* const at = panel_row<S>(dense_rows(p, to), batch, channel, panel);
    store_panel<V>(const_cast<S*>(at), from, panel.count);
  };
  give(g.grad_u, w.scan.u);
  give(g.grad_delta, w.to_delta);
  if (p.z.data) give(g.grad_z, w.factor);
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
