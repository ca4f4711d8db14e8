// selective_scan backward: chunks from the last to the first; in each the states are made again
// from the one saved before it, a few at a time, so that they stay in the cache.
//
// With g_t = dL/dy_t, e_t = dL/dh_t and a_t = exp(delta'_t A):
//   e_t = C_t g_t + a_{t+1} e_{t+1},  dC_t = g_t h_t,  dB_t = e_t delta'_t u_t,
//   dA = sum e_t a_t h_{t-1} delta'_t,  d(delta'_t) = sum_n e_t (a_t h_{t-1} A + B_t u_t)
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/tile-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

constexpr int kTogether = 4;  // states
constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

// Tables [states][lanes] of a block of channels; per step of a chunk [steps][lanes].
template <class N>
struct GradWorkspace {
  N *a, *carry, *grad_a, *b, *c, *grad_b, *grad_c;        // by state; b and c: constant ones
  N *delta, *slope, *u, *z, *y, *grad, *to_x, *to_delta;  // by step
  N *before, *after, *decay, *to_b, *to_c;                // [steps] of kTogether vectors
  bool* restart;
  N *sum_b, *sum_c;  // varying: this unit's dB and dC [time, state]
};

template <class V, class N>
int64_t workspace_bytes(const SelectiveScanParams& p) {
  const int64_t table = p.states * V::N, steps = p.chunk * V::N;
  return (7 * table + 8 * steps + 5 * p.chunk * kTogether * V::N) *
             static_cast<int64_t>(sizeof(N)) +
         p.chunk;
}

template <class V, class N>
GradWorkspace<N> cut_workspace(const SelectiveScanParams& p, void* memory) {
  const int64_t table = p.states * V::N, steps = p.chunk * V::N;
  GradWorkspace<N> w;
  N* next = static_cast<N*>(memory);
  N** const tables[] = {&w.a, &w.carry, &w.grad_a, &w.b, &w.c, &w.grad_b, &w.grad_c};
  N** const rows[] = {&w.delta, &w.slope, &w.u, &w.z, &w.y, &w.grad, &w.to_x, &w.to_delta};
  for (N** t : tables) {
    *t = next;
    next += table;
  }
  for (N** r : rows) {
    *r = next;
    next += steps;
  }
  N** const states[] = {&w.before, &w.after, &w.decay, &w.to_b, &w.to_c};
  for (N** x : states) {
    *x = next;
    next += p.chunk * kTogether * V::N;
  }
  w.restart = reinterpret_cast<bool*>(next);
  return w;
}

// The chunk's rows in the order of the scan: tile by tile, so that `reverse` ends here.
template <class V, class S, class N>
SUFFUSE_INLINE void load_chunk(N* to, const ScanRows& from, const Lanes& at, const Steps& chunk) {
  alignas(64) N tile[kScanSteps * V::N];
  for (int first = 0; first < chunk.count; first += kScanSteps) {
    const Steps steps{chunk.first + first,
                      static_cast<int>(smaller(kScanSteps, chunk.count - first)), chunk.reverse,
                      chunk.length};
    load_tile<V, S>(tile, from, at, steps.begin(), steps.count);
    for (int i = 0; i < steps.count; i++) {
      store(to + (first + i) * V::N, load<V>(tile + steps.row(i) * V::N));
    }
  }
}

template <class V, class S, class N>
SUFFUSE_INLINE void store_chunk(void* to, const SelectiveScanParams& p, const N* from,
                                const Lanes& at, const Steps& chunk) {
  alignas(64) N tile[kScanSteps * V::N];
  for (int first = 0; first < chunk.count; first += kScanSteps) {
    const Steps steps{chunk.first + first,
                      static_cast<int>(smaller(kScanSteps, chunk.count - first)), chunk.reverse,
                      chunk.length};
    for (int i = 0; i < steps.count; i++) {
      store(tile + steps.row(i) * V::N, load<V>(from + (first + i) * V::N));
    }
    store_tile<V, S>(to, p.channels, p.length, tile, at, steps.begin(), steps.count);
  }
}

// delta', its derivative for delta, u, the gradient of y (before the gate) and dz.
template <class V, class S, class N>
SUFFUSE_INLINE void prepare_chunk(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                  const Lanes& at, const Steps& chunk) {
  const SelectiveScanParams& p = g.forward;
  const V bias = load_channels<V, N>(p.bias, at);
  load_chunk<V, S>(w.delta, p.delta, at, chunk);
  load_chunk<V, S>(w.u, p.u, at, chunk);
  load_chunk<V, S>(w.grad, g.grad_out, at, chunk);
  if (p.softplus) {
    for (int t = 0; t < chunk.count; t++) {
      store(w.slope + t * V::N, sigmoid(load<V>(w.delta + t * V::N) + bias));
    }
  }
  discretise(w.delta, chunk.count, bias, p.softplus);
  for (int i = 0; i < chunk.count; i++) {
    w.restart[i] = restarts(p, at.batch, chunk, i);
    store(w.to_x + i * V::N, zero<V>());
    store(w.to_delta + i * V::N, zero<V>());
  }
  if (!p.z.data) return;
  const ScanRows ungated{p.ungated, p.channels * p.length, p.length, 1};
  load_chunk<V, S>(w.z, p.z, at, chunk);
  load_chunk<V, S>(w.y, ungated, at, chunk);
  for (int t = 0; t < chunk.count; t++) {
    const V z = load<V>(w.z + t * V::N), s = sigmoid(z), grad = load<V>(w.grad + t * V::N);
    const V gate = z * s;
    store(w.z + t * V::N, grad * load<V>(w.y + t * V::N) * muladd(gate, V(1) - s, s));
    store(w.grad + t * V::N, grad * gate);
  }
}

// The states n to n + states - 1 and decays of a chunk.
template <int states, bool any, bool both, class V, class N>
SUFFUSE_INLINE void remake_states(const SelectiveScanParams& p, GradWorkspace<N>& w, const N* b,
                                  const N* before, const Steps& chunk, int n) {
  V h[states];
  for (int k = 0; k < states; k++) h[k] = load<V>(before + (n + k) * kScanLanes);
  for (int i = 0; i < chunk.count; i++) {
    const V delta = load<V>(w.delta + i * V::N), x = delta * load<V>(w.u + i * V::N);
    const N* bt = b + chunk.row(i) * p.states + n;
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      if (w.restart[i]) h[k] = zero<V>();
      store(w.before + (i * kTogether + k) * V::N, h[k]);
      const V a = decay<any>(delta * load<V>(w.a + (n + k) * V::N));
      store(w.decay + (i * kTogether + k) * V::N, a);
      h[k] = muladd(a, h[k], x * projected<both, V>(p.b, bt, w.b + n * V::N, k));
      store(w.after + (i * kTogether + k) * V::N, h[k]);
    }
  }
}

// sums[time, state] += the lane sums of rows[step, state]: whole vectors of rows at once.
template <int states, class V, class N>
SUFFUSE_INLINE void add_lane_sums(N* sums, const N* rows, const SelectiveScanParams& p,
                                  const Steps& chunk, int n) {
  const int64_t at = chunk.begin();
  const int total = chunk.count * kTogether;
  for (int first = 0; first < total; first += V::N) {
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      row[i] = first + i < total ? load<V>(rows + (first + i) * V::N) : zero<V>();
    }
    transpose(row);
#pragma GCC unroll 4
    for (int width = V::N / 2; width >= 1; width /= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < width; i++) row[i] += row[i + width];
    }
    N sum[V::N];
    store(sum, row[0]);
    for (int i = 0; i < V::N && first + i < total; i++) {
      const int step = (first + i) / kTogether, k = (first + i) % kTogether;
      if (k < states) sums[(at + chunk.row(step)) * p.states + n + k] += sum[i];
    }
  }
}

template <int states, bool any, bool both, class V, class N>
SUFFUSE_INLINE void chunk_states_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                          const N* b, const N* c, const N* before,
                                          const Steps& chunk, int n) {
  const SelectiveScanParams& p = g.forward;
  remake_states<states, any, both, V>(p, w, b, before, chunk, n);
  V carry[states], grad_a[states];
  for (int k = 0; k < states; k++) {
    carry[k] = load<V>(w.carry + (n + k) * V::N);
    grad_a[k] = load<V>(w.grad_a + (n + k) * V::N);
  }
  for (int i = chunk.count - 1; i >= 0; i--) {
    const V delta = load<V>(w.delta + i * V::N), grad = load<V>(w.grad + i * V::N);
    const V x = delta * load<V>(w.u + i * V::N);
    const int64_t row = chunk.row(i) * p.states + n;
    V to_x = load<V>(w.to_x + i * V::N), to_delta = load<V>(w.to_delta + i * V::N);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      const V e = muladd(grad, projected<both, V>(p.c, c + row, w.c + n * V::N, k), carry[k]);
      const V to_b = e * x, to_c = grad * load<V>(w.after + (i * kTogether + k) * V::N);
      if (both || p.b.varying) {
        store(w.to_b + (i * kTogether + k) * V::N, to_b);
      } else {
        N* sum = w.grad_b + (n + k) * V::N;
        store(sum, load<V>(sum) + to_b);
      }
      if (both || p.c.varying) {
        store(w.to_c + (i * kTogether + k) * V::N, to_c);
      } else {
        N* sum = w.grad_c + (n + k) * V::N;
        store(sum, load<V>(sum) + to_c);
      }
      to_x = muladd(e, projected<both, V>(p.b, b + row, w.b + n * V::N, k), to_x);
      carry[k] = e * load<V>(w.decay + (i * kTogether + k) * V::N);
      const V through = carry[k] * load<V>(w.before + (i * kTogether + k) * V::N);
      to_delta = muladd(through, load<V>(w.a + (n + k) * V::N), to_delta);
      grad_a[k] = muladd(through, delta, grad_a[k]);
      if (w.restart[i]) carry[k] = zero<V>();
    }
    store(w.to_x + i * V::N, to_x);
    store(w.to_delta + i * V::N, to_delta);
  }
  for (int k = 0; k < states; k++) {
    store(w.carry + (n + k) * V::N, carry[k]);
    store(w.grad_a + (n + k) * V::N, grad_a[k]);
  }
  if (p.b.varying) add_lane_sums<states, V>(w.sum_b, w.to_b, p, chunk, n);
  if (p.c.varying) add_lane_sums<states, V>(w.sum_c, w.to_c, p, chunk, n);
}

template <bool any, bool both, class V, class N>
SUFFUSE_INLINE void chunk_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                   const Lanes& at, const Steps& chunk) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = ((at.batch * p.groups + at.group) * p.length + chunk.begin()) * p.states;
  const N* b = static_cast<const N*>(p.b.packed) + (p.b.varying ? row : 0);
  const N* c = static_cast<const N*>(p.c.packed) + (p.c.varying ? row : 0);
  const N* before = chunk_state<N>(p, at, chunk.first / p.chunk) + at.part * V::N;
  const int states = static_cast<int>(p.states);
  int n = 0;
  for (; n + 4 <= states; n += 4)
    chunk_states_backward<4, any, both, V>(g, w, b, c, before, chunk, n);
  if (states & 2) chunk_states_backward<2, any, both, V>(g, w, b, c, before, chunk, (n += 2) - 2);
  if (states & 1) chunk_states_backward<1, any, both, V>(g, w, b, c, before, chunk, n);
}

// dD and dbias of the chunk, and what its rows give back.
template <class V, class S, class N>
SUFFUSE_INLINE void finish_chunk(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                 const Lanes& at, const Steps& chunk, V& grad_skip, V& grad_bias) {
  const SelectiveScanParams& p = g.forward;
  const V skip = load_channels<V, N>(p.skip, at);
  for (int i = 0; i < chunk.count; i++) {
    const V u = load<V>(w.u + i * V::N), grad = load<V>(w.grad + i * V::N);
    const V to_x = load<V>(w.to_x + i * V::N);
    V to_delta = muladd(load<V>(w.to_delta + i * V::N), V(static_cast<N>(kLn2)), to_x * u);
    if (p.softplus) to_delta *= load<V>(w.slope + i * V::N);
    grad_skip = muladd(grad, u, grad_skip);
    grad_bias += to_delta;
    store(w.to_delta + i * V::N, to_delta);
    store(w.u + i * V::N, muladd(to_x, load<V>(w.delta + i * V::N), grad * skip));
  }
  store_chunk<V, S>(g.grad_u, p, w.u, at, chunk);
  store_chunk<V, S>(g.grad_delta, p, w.to_delta, at, chunk);
  if (p.z.data) store_chunk<V, S>(g.grad_z, p, w.z, at, chunk);
}

template <class V, class S, class N>
void scan_lanes_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w, const Lanes& at) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = at.batch * p.channels + at.channel;
  load_states<V>(w.a, p.a, at.channel, p.states, at.count, static_cast<N>(kLog2e));
  load_states<V>(w.carry, g.grad_last, row, p.states, at.count);
  if (!p.b.varying) load_states<V>(w.b, p.b.data, at.channel, p.states, at.count);
  if (!p.c.varying) load_states<V>(w.c, p.c.data, at.channel, p.states, at.count);
  N* const sums_of_lanes[] = {w.grad_a, w.grad_b, w.grad_c};
  for (N* sums : sums_of_lanes) {
    __builtin_memset(sums, 0, static_cast<size_t>(p.states * V::N) * sizeof(N));
  }
  // Without softplus a step may be negative.
  const bool positive = !p.softplus || any_positive<V>(w.a, p.states);
  V grad_skip = zero<V>(), grad_bias = zero<V>();
  for (int64_t c = scan_chunks(p) - 1; c >= 0; c--) {
    const int64_t first = c * p.chunk;
    const Steps chunk{first, static_cast<int>(smaller(p.chunk, p.length - first)), p.reverse,
                      p.length};
    prepare_chunk<V, S>(g, w, at, chunk);
    for_kind(p, positive, [&](auto any, auto both) {
      chunk_backward<any.value, both.value, V>(g, w, at, chunk);
    });
    finish_chunk<V, S>(g, w, at, chunk, grad_skip, grad_bias);
  }
  store_states<V>(g.grad_initial, row, p.states, at.count, w.carry);
  store_states<V>(g.sums_a, row, p.states, at.count, w.grad_a);
  if (!p.b.varying) store_states<V>(g.sums_b, row, p.states, at.count, w.grad_b);
  if (!p.c.varying) store_states<V>(g.sums_c, row, p.states, at.count, w.grad_c);
  store(static_cast<N*>(g.sums_skip) + row, grad_skip, at.count);
  store(static_cast<N*>(g.sums_bias) + row, grad_bias, at.count);
}

// One part of a group's blocks, one after another, into one dB and dC.
template <class V, class S, class N>
void scan_part_backward(const SelectiveScanGradParams& g, int64_t pair, int64_t part) {
  const SelectiveScanParams& p = g.forward;
  GradWorkspace<N> w = cut_workspace<V, N>(p, selective_scan_scratch(workspace_bytes<V, N>(p)));
  const int64_t size = p.length * p.states, unit = pair * g.parts + part;
  w.sum_b = static_cast<N*>(g.sums_b) + (p.b.varying ? unit * size : 0);
  w.sum_c = static_cast<N*>(g.sums_c) + (p.c.varying ? unit * size : 0);
  if (p.b.varying) __builtin_memset(w.sum_b, 0, static_cast<size_t>(size) * sizeof(N));
  if (p.c.varying) __builtin_memset(w.sum_c, 0, static_cast<size_t>(size) * sizeof(N));
  const int64_t blocks = scan_blocks_of_group(p);
  for (int64_t block = part * blocks / g.parts; block < (part + 1) * blocks / g.parts; block++) {
    for_lanes<V>(p, pair / p.groups, pair % p.groups, block,
                 [&](const Lanes& at) { scan_lanes_backward<V, S>(g, w, at); });
  }
}

}  // namespace selective_scan

void selective_scan_bwd_range(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      selective_scan::scan_part_backward<V, S, N>(g, unit / g.parts, unit % g.parts);
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
