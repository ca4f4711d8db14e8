// selective_scan forward: channels on the lanes, so that the recurrence has no sum over lanes, and
// a few states in registers at a time through a tile of steps.
#include "ops/selective_scan/cpu/kernel.h"

#include "ops/selective_scan/cpu/tile-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// What a block of channels works with while it goes through time.
template <class V, class N>
struct Workspace {
  N *a, *h, *b, *c;  // [states][lanes]: A log2 e, the state, constant B and C
  N delta[kScanSteps * V::N], x[kScanSteps * V::N], y[kScanSteps * V::N], z[kScanSteps * V::N];
  bool restart[kScanSteps];
};

// `states` states from n on through one tile; y += C h.
template <int states, bool any, bool both, class V, class N>
SUFFUSE_INLINE void scan_states(const SelectiveScanParams& p, Workspace<V, N>& w, const N* b,
                                const N* c, const Steps& steps, int n) {
  V h[states];
#pragma GCC unroll 8
  for (int k = 0; k < states; k++) h[k] = load<V>(w.h + (n + k) * V::N);
  for (int i = 0; i < steps.count; i++) {
    const int t = steps.row(i);
    if (w.restart[i]) {
      for (int k = 0; k < states; k++) h[k] = zero<V>();
    }
    const V delta = load<V>(w.delta + t * V::N), x = load<V>(w.x + t * V::N);
    const N *bt = b + t * p.states + n, *ct = c + t * p.states + n;
    V even = load<V>(w.y + t * V::N), odd = zero<V>();
#pragma GCC unroll 8
    for (int k = 0; k < states; k++) {
      const V a = decay<any>(delta * load<V>(w.a + (n + k) * V::N));
      h[k] = muladd(a, h[k], x * projected<both, V>(p.b, bt, w.b + n * V::N, k));
      const V c_k = projected<both, V>(p.c, ct, w.c + n * V::N, k);
      if (k % 2) {
        odd = muladd(h[k], c_k, odd);
      } else {
        even = muladd(h[k], c_k, even);
      }
    }
    store(w.y + t * V::N, even + odd);
  }
#pragma GCC unroll 8
  for (int k = 0; k < states; k++) store(w.h + (n + k) * V::N, h[k]);
}

template <bool any, bool both, class V, class N>
SUFFUSE_INLINE void scan_tile(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                              const Steps& steps) {
  const int64_t row = ((at.batch * p.groups + at.group) * p.length + steps.begin()) * p.states;
  const N* b = static_cast<const N*>(p.b.packed) + (p.b.varying ? row : 0);
  const N* c = static_cast<const N*>(p.c.packed) + (p.c.varying ? row : 0);
  const int states = static_cast<int>(p.states);
  int n = 0;
  for (; n + 8 <= states; n += 8) scan_states<8, any, both>(p, w, b, c, steps, n);
  if (states & 4) scan_states<4, any, both>(p, w, b, c, steps, (n += 4) - 4);
  if (states & 2) scan_states<2, any, both>(p, w, b, c, steps, (n += 2) - 2);
  if (states & 1) scan_states<1, any, both>(p, w, b, c, steps, n);
}

// The tile's delta', delta' u and skip u.
template <class V, class S, class N>
SUFFUSE_INLINE void load_inputs(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                                const Steps& steps) {
  load_tile<V, S>(w.delta, p.delta, at, steps.begin(), steps.count);
  discretise(w.delta, steps.count, load_channels<V, N>(p.bias, at), p.softplus);
  load_tile<V, S>(w.x, p.u, at, steps.begin(), steps.count);
  const V skip = load_channels<V, N>(p.skip, at);
  for (int t = 0; t < steps.count; t++) {
    const V u = load<V>(w.x + t * V::N);
    store(w.y + t * V::N, skip * u);
    store(w.x + t * V::N, u * load<V>(w.delta + t * V::N));
  }
  for (int i = 0; i < steps.count; i++) w.restart[i] = restarts(p, at.batch, steps, i);
}

template <class V, class S, class N>
SUFFUSE_INLINE void store_outputs(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                                  const Steps& steps) {
  const auto write = [&](void* to) {
    store_tile<V, S>(to, p.channels, p.length, w.y, at, steps.begin(), steps.count);
  };
  if (p.z.data) {
    if (p.ungated) write(p.ungated);
    load_tile<V, S>(w.z, p.z, at, steps.begin(), steps.count);
    for (int t = 0; t < steps.count; t++) {
      store(w.y + t * V::N, load<V>(w.y + t * V::N) * silu(load<V>(w.z + t * V::N)));
    }
  }
  write(p.out);
}

template <class V, class S, class N>
void scan_lanes(const SelectiveScanParams& p, const Lanes& at) {
  constexpr double kLog2e = 1.4426950408889634;
  Workspace<V, N> w;
  const int64_t size = p.states * V::N;
  w.a = static_cast<N*>(selective_scan_scratch(4 * size * static_cast<int64_t>(sizeof(N))));
  w.h = w.a + size;
  w.b = w.h + size;
  w.c = w.b + size;
  load_states<V>(w.a, p.a, at.channel, p.states, at.count, static_cast<N>(kLog2e));
  load_states<V>(w.h, p.initial, at.batch * p.channels + at.channel, p.states, at.count);
  if (!p.b.varying) load_states<V>(w.b, p.b.data, at.channel, p.states, at.count);
  if (!p.c.varying) load_states<V>(w.c, p.c.data, at.channel, p.states, at.count);
  // Without softplus a step may be negative.
  const bool positive = !p.softplus || any_positive<V>(w.a, p.states);
  for (int64_t first = 0; first < p.length; first += kScanSteps) {
    const Steps steps{first, static_cast<int>(smaller(kScanSteps, p.length - first)), p.reverse,
                      p.length};
    if (p.chunk_states && first % p.chunk == 0) {
      N* to = chunk_state<N>(p, at, first / p.chunk) + at.part * V::N;
      for (int64_t n = 0; n < p.states; n++) {
        store(to + n * kScanLanes, load<V>(w.h + n * V::N));
      }
    }
    load_inputs<V, S>(p, w, at, steps);
    for_kind(p, positive,
             [&](auto any, auto both) { scan_tile<any.value, both.value>(p, w, at, steps); });
    store_outputs<V, S>(p, w, at, steps);
  }
  store_states<V>(p.last, at.batch * p.channels + at.channel, p.states, at.count, w.h);
}

template <class V, class S, class N>
void pack_projection(const SelectiveScanParams& p, const ScanProjection& from, int64_t pair,
                     int64_t begin, int count) {
  const S* base = static_cast<const S*>(from.data) + pair / p.groups * from.batch +
                  pair % p.groups * from.group + begin * from.time;
  N* to = static_cast<N*>(from.packed) + (pair * p.length + begin) * p.states;
  for (int64_t n = 0; n < p.states; n += V::N) {
    const int states = static_cast<int>(smaller(V::N, p.states - n));
    for (int t = 0; t < count; t += V::N) {
      const int steps = static_cast<int>(smaller(V::N, count - t));
      const S* corner = base + n * from.state + t * from.time;
      V row[V::N];
      if (from.state == 1) {  // already time before state
        for (int i = 0; i < steps; i++) row[i] = load<V>(corner + i * from.time, states);
      } else {
        for (int i = 0; i < V::N; i++) {
          row[i] = i < states ? load<V>(corner + i * from.state, steps) : zero<V>();
        }
        transpose(row);
      }
      for (int i = 0; i < steps; i++) store(to + (t + i) * p.states + n, row[i], states);
    }
  }
}

}  // namespace selective_scan

void selective_scan_pack_range(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const int64_t tiles = (p.length + kScanSteps - 1) / kScanSteps;
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t pair = unit / tiles, first = unit % tiles * kScanSteps;
      const int count = static_cast<int>(selective_scan::smaller(kScanSteps, p.length - first));
      if (p.b.varying) selective_scan::pack_projection<V, S, N>(p, p.b, pair, first, count);
      if (p.c.varying) selective_scan::pack_projection<V, S, N>(p, p.c, pair, first, count);
    }
  });
}

void selective_scan_fwd_range(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t blocks = scan_blocks(p), of_group = scan_blocks_of_group(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t block = unit % blocks;
      selective_scan::for_lanes<V>(
          p, unit / blocks, block / of_group, block % of_group,
          [&](const selective_scan::Lanes& at) { selective_scan::scan_lanes<V, S, N>(p, at); });
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
