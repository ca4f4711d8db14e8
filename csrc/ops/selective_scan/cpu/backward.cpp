// selective_scan backward: chunks from the last to the first; in each the states are made again
// from the one saved before it, a few at a time, so that they stay in the cache.
//
// With g_t = dL/dy_t, e_t = dL/dh_t and a_t = exp(delta'_t A):
//   e_t = C_t g_t + a_{t+1} e_{t+1},  dC_t = g_t h_t,  dB_t = e_t delta'_t u_t,
//   dA = sum e_t a_t h_{t-1} delta'_t,  d(delta'_t) = sum_n e_t (a_t h_{t-1} A + B_t u_t)
#include "ops/selective_scan/cpu/chunk-inl.h"
#include "ops/selective_scan/cpu/kernel.h"
#include "simd/flush_subnormals.h"
#include "simd/sum_lanes.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// B and C of a chunk from state n on.
template <class N>
struct Projections {
  const N *b, *c;                    // [time, state]
  const N *constant_b, *constant_c;  // [state][lanes]
};

// Where a walk through a chunk is: scan step i is row t.
struct Walk {
  int t, turn;
  SUFFUSE_INLINE void go() { t += turn; }
};
SUFFUSE_INLINE Walk forwards(const Steps& chunk) { return {chunk.row(0), chunk.reverse ? -1 : 1}; }
SUFFUSE_INLINE Walk backwards(const Steps& chunk) {
  return {chunk.row(chunk.count - 1), chunk.reverse ? 1 : -1};
}

// The states from n on, and decays, of a chunk; y += C h.
template <int states, bool any, bool both, class V, class N>
SUFFUSE_INLINE void remake_states(const SelectiveScanParams& p, GradWorkspace<N>& w,
                                  const Projections<N>& from, const N* before, const Steps& chunk,
                                  int n, Ahead::Pair next) {
  constexpr int kRow = kTogether * V::N;
  const N* const a = w.a + n * V::N;
  Walk at = forwards(chunk);
  V h[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    h[k] = load<V>(before + (n + k) * kScanLanes);
    store(w.states + (at.t - at.turn) * kRow + k * V::N, h[k]);
  }
  for (int i = 0; i < chunk.count; i++, at.go()) {
    next.go(i);
    const V delta = load<V>(w.delta + at.t * V::N), x = load<V>(w.x + at.t * V::N);
    const N *b = from.b + at.t * p.states, *c = from.c + at.t * p.states;
    N *const kept = w.states + at.t * kRow, *const decays = w.decays + at.t * kRow;
    V y = load<V>(w.y + at.t * V::N);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      if (w.restart[i]) h[k] = zero<V>();
      const V factor = decay<any>(delta, load<V>(a + k * V::N));
      h[k] = muladd(factor, h[k], x * projected<both, V>(p.b, b, from.constant_b, k));
      y = muladd(h[k], projected<both, V>(p.c, c, from.constant_c, k), y);
      store(decays + k * V::N, factor);
      store(kept + k * V::N, h[k]);
    }
    store(w.y + at.t * V::N, y);
  }
}

// sums[time][k] += the lane sums of rows[time][k].
template <int states, class V, class N>
SUFFUSE_INLINE void add_lane_sums(N* sums, const N* rows, int steps) {
  const int total = steps * kTogether;
  for (int first = 0; first < total; first += V::N) {
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      const bool there = (first + i) % kTogether < states && first + i < total;
      row[i] = there ? load<V>(rows + (first + i) * V::N) : zero<V>();
    }
    store(sums + first, load<V>(sums + first) + sum_lanes(row));
  }
}

// The gradients of the states from n on; dB and dC of each step and lane take the place of its
// decay and its state.
template <int states, bool both, class V, class N>
SUFFUSE_INLINE void states_backward(const SelectiveScanParams& p, GradWorkspace<N>& w,
                                    const Projections<N>& from, const Steps& chunk, int n) {
  constexpr int kRow = kTogether * V::N;
  const N* const a = w.a + n * V::N;
  V carry[states], grad_a[states], rate[states], grad_b[states], grad_c[states];
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    carry[k] = load<V>(w.carry + (n + k) * V::N);
    grad_a[k] = load<V>(w.grad_a + (n + k) * V::N);
    rate[k] = load<V>(a + k * V::N);
    grad_b[k] = grad_c[k] = zero<V>();
  }
  Walk at = backwards(chunk);
  for (int i = chunk.count - 1; i >= 0; i--, at.go()) {
    const V delta = load<V>(w.delta + at.t * V::N), grad = load<V>(w.grad + at.t * V::N);
    const V x = load<V>(w.x + at.t * V::N);
    const N *b = from.b + at.t * p.states, *c = from.c + at.t * p.states;
    N *const kept = w.states + at.t * kRow, *const decays = w.decays + at.t * kRow;
    const N* const earlier = kept + at.turn * kRow;
    V to_x = load<V>(w.to_x + at.t * V::N), to_delta = load<V>(w.to_delta + at.t * V::N);
#pragma GCC unroll 4
    for (int k = 0; k < states; k++) {
      const V e = muladd(grad, projected<both, V>(p.c, c, from.constant_c, k), carry[k]);
      const V to_b = e * x, to_c = grad * load<V>(kept + k * V::N);
      to_x = muladd(e, projected<both, V>(p.b, b, from.constant_b, k), to_x);
      carry[k] = e * load<V>(decays + k * V::N);
      const V h = w.restart[i] ? zero<V>() : load<V>(earlier + k * V::N);
      const V through = carry[k] * h;
      to_delta = muladd(through, rate[k], to_delta);
      grad_a[k] = muladd(through, delta, grad_a[k]);
      if (w.restart[i]) carry[k] = zero<V>();
      store(decays + k * V::N, to_b);
      store(kept + k * V::N, to_c);
      if (!both) {
        grad_b[k] += to_b;
        grad_c[k] += to_c;
      }
    }
    store(w.to_x + at.t * V::N, to_x);
    store(w.to_delta + at.t * V::N, to_delta);
  }
#pragma GCC unroll 4
  for (int k = 0; k < states; k++) {
    N *const sum_b = w.grad_b + (n + k) * V::N, *const sum_c = w.grad_c + (n + k) * V::N;
    store(w.carry + (n + k) * V::N, carry[k]);
    store(w.grad_a + (n + k) * V::N, grad_a[k]);
    if (both) continue;
    store(sum_b, load<V>(sum_b) + grad_b[k]);
    store(sum_c, load<V>(sum_c) + grad_c[k]);
  }
}

template <bool any, bool both, class V, class N>
SUFFUSE_INLINE void chunk_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                   const Lanes& at, const Steps& chunk, const Ahead& ahead) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = ((at.batch * p.groups + at.group) * p.length + chunk.begin()) * p.states;
  const N* const b = static_cast<const N*>(p.b.packed) + (p.b.varying ? row : 0);
  const N* const c = static_cast<const N*>(p.c.packed) + (p.c.varying ? row : 0);
  const N* const before = chunk_state<N>(p, at, chunk.first / p.chunk) + at.part * V::N;
  const int64_t each = scan_windows(p) * kScanSteps * kTogether;
  int64_t place = at.first_state / kTogether * each + chunk.begin() * kTogether;  // in the sums
  int pass = 0;
  const auto run = [&](auto states, int n) {
    constexpr int kStates = decltype(states)::value;
    const Projections<N> from{b + n, c + n, w.b + n * V::N, w.c + n * V::N};
    remake_states<kStates, any, both, V>(p, w, from, before, chunk, n, ahead.pair(pass++));
    states_backward<kStates, both, V>(p, w, from, chunk, n);
    if (p.b.varying) add_lane_sums<kStates, V>(w.sum_b + place, w.decays, chunk.count);
    if (p.c.varying) add_lane_sums<kStates, V>(w.sum_c + place, w.states, chunk.count);
    place += each;
  };
  const int states = at.last_state - at.first_state;
  int n = at.first_state;
  for (; n + 4 <= at.last_state; n += 4) run(std::integral_constant<int, 4>(), n);
  if (states & 2) run(std::integral_constant<int, 2>(), (n += 2) - 2);
  if (states & 1) run(std::integral_constant<int, 1>(), n);
  ahead.rest(pass);
}

// Calls fn(chunk) from the last chunk to the first.
template <class Fn>
SUFFUSE_INLINE void for_chunks(const SelectiveScanParams& p, Fn fn) {
  for (int64_t c = scan_chunks(p) - 1; c >= 0; c--) {
    const int64_t first = c * p.chunk;
    fn(Steps{first, static_cast<int>(smaller(p.chunk, p.length - first)), p.reverse, p.length});
  }
}

template <class V, class S, class N>
void scan_lanes_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w, const Lanes& at) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = at.batch * p.channels + at.channel;
  load_states<V>(w.a, p.a, at.channel, p.states, at, static_cast<N>(kLog2e));
  load_states<V>(w.carry, g.grad_last, row, p.states, at);
  if (!p.b.varying) load_states<V>(w.b, p.b.data, at.channel, p.states, at);
  if (!p.c.varying) load_states<V>(w.c, p.c.data, at.channel, p.states, at);
  N* const sums_of_lanes[] = {w.grad_a, w.grad_b, w.grad_c};
  for (N* sums : sums_of_lanes) {
    __builtin_memset(sums, 0, static_cast<size_t>(p.states * V::N) * sizeof(N));
  }
  // Without softplus a step may be negative.
  const bool unusual = !p.softplus || any_unusual(w.a, at.first_state * V::N, at.last_state * V::N);
  V grad_skip = zero<V>(), grad_bias = zero<V>();
  for_chunks(p, [&](const Steps& chunk) {
    const Ahead ahead = ahead_of_chunk<S>(g, at, chunk);
    prepare_chunk<V, S>(g, w, at, chunk);
    for_kind(p, unusual, [&](auto any, auto both) {
      chunk_backward<any.value, both.value, V>(g, w, at, chunk, ahead);
    });
    if (scan_parts(p) == 1) {
      finish_chunk<V, S>(g, w, at, chunk, grad_skip, grad_bias);
    } else {
      for (int i = 0; i < kPartRows; i++) leave_row<V>(p, at, kPartRows, i, chunk, part_rows(w, i));
    }
  });
  store_states<V>(g.grad_initial, row, p.states, at, w.carry);
  store_states<V>(g.sums_a, row, p.states, at, w.grad_a);
  if (!p.b.varying) store_states<V>(g.sums_b, row, p.states, at, w.grad_b);
  if (!p.c.varying) store_states<V>(g.sums_c, row, p.states, at, w.grad_c);
  if (scan_parts(p) == 1) store_channel_sums<V, N>(g, at, grad_skip, grad_bias);
}

// A block's gradients from what all parts of the states have left.
template <class V, class S, class N>
void join_lanes_backward(const SelectiveScanGradParams& g, GradWorkspace<N>& w, const Lanes& at) {
  const SelectiveScanParams& p = g.forward;
  V grad_skip = zero<V>(), grad_bias = zero<V>();
  for_chunks(p, [&](const Steps& chunk) {
    prepare_chunk<V, S>(g, w, at, chunk);
    for (int i = 0; i < kPartRows; i++) {
      add_parts_of_row<V>(part_rows(w, i), p, at, kPartRows, i, chunk);
    }
    finish_chunk<V, S>(g, w, at, chunk, grad_skip, grad_bias);
  });
  store_channel_sums<V, N>(g, at, grad_skip, grad_bias);
}

// One part of a group's blocks, one after another, with one part of the states, into one dB and dC.
template <class V, class S, class N>
void scan_part_backward(const SelectiveScanGradParams& g, int64_t pair, int64_t part,
                        int64_t states_part) {
  const SelectiveScanParams& p = g.forward;
  GradWorkspace<N> w = cut_workspace<V, N>(p, selective_scan_scratch(workspace_bytes<V, N>(p)));
  const int64_t size = scan_sums_size(p), unit = pair * g.parts + part;
  w.sum_b = static_cast<N*>(g.sums_b) + (p.b.varying ? unit * size : 0);
  w.sum_c = static_cast<N*>(g.sums_c) + (p.c.varying ? unit * size : 0);
  const int64_t begin = scan_sums_begin(p, states_part);
  const size_t own = static_cast<size_t>(scan_sums_begin(p, states_part + 1) - begin) * sizeof(N);
  if (p.b.varying) __builtin_memset(w.sum_b + begin, 0, own);
  if (p.c.varying) __builtin_memset(w.sum_c + begin, 0, own);
  const int64_t blocks = scan_blocks_of_group(p);
  for (int64_t block = part * blocks / g.parts; block < (part + 1) * blocks / g.parts; block++) {
    for_lanes<V>(p, pair / p.groups, pair % p.groups, block, states_part,
                 [&](const Lanes& at) { scan_lanes_backward<V, S>(g, w, at); });
  }
}

}  // namespace selective_scan

void selective_scan_bwd_range(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t parts = scan_parts(g.forward);
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t of_blocks = unit / parts;
      selective_scan::scan_part_backward<V, S, N>(g, of_blocks / g.parts, of_blocks % g.parts,
                                                  unit % parts);
    }
  });
}

void selective_scan_join_bwd_range(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const SelectiveScanParams& p = g.forward;
  const int64_t blocks = scan_blocks(p), of_group = scan_blocks_of_group(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    auto w = selective_scan::cut_workspace<V, N>(
        p, selective_scan_scratch(selective_scan::workspace_bytes<V, N>(p)));
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t block = unit % blocks;
      selective_scan::for_lanes<V>(p, unit / blocks, block / of_group, block % of_group, 0,
                                   [&](const selective_scan::Lanes& at) {
                                     selective_scan::join_lanes_backward<V, S>(g, w, at);
                                   });
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
