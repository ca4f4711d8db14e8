// selective_scan forward: channels on the lanes, so that the recurrence has no sum over lanes, and
// a few states in registers at a time through a tile of steps.
#include "ops/selective_scan/cpu/kernel.h"

#include "ops/selective_scan/cpu/ahead-inl.h"
#include "ops/selective_scan/cpu/tile-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// Steps of a tile at most: as many as may lie between two saved states.
constexpr int kTileSteps = 4 * kScanSteps;

// Rows far apart cost a walk through the page tables at each visit, which four cache lines share;
// it pays where there is time to ask for them.
template <class S>
SUFFUSE_INLINE int64_t tile_steps(const SelectiveScanParams& p, const Lanes& at) {
  constexpr int64_t kFar = 16384;  // bytes
  if (p.chunk_states) return p.chunk;
  const bool far = p.u.time == 1 && p.u.channel * static_cast<int64_t>(sizeof(S)) >= kFar;
  return far && at.last_state - at.first_state > 8 ? kTileSteps : kScanSteps;
}

// What a block of channels works with while it goes through time.
template <class V, class N>
struct Workspace {
  N *a, *h, *b, *c;  // [states][lanes]: A log2 e, the state, constant B and C
  alignas(64) N delta[kTileSteps * V::N], x[kTileSteps * V::N], y[kTileSteps * V::N],
      z[kTileSteps * V::N];
  N gate[kTileSteps * V::N];  // rows of V::N steps, one a lane, for each V::N steps
  bool restart[kTileSteps] = {};
};

// `states` states from n on through one tile; y += C h.
template <int states, bool any, bool both, class V, class N>
SUFFUSE_INLINE void scan_states(const SelectiveScanParams& p, Workspace<V, N>& w, const N* b,
                                const N* c, const Steps& steps, int n, Ahead::Pair next) {
  const N *a = w.a + n * V::N, *constant_b = w.b + n * V::N, *constant_c = w.c + n * V::N;
  N* const state = w.h + n * V::N;
  V h[states];
#pragma GCC unroll 8
  for (int k = 0; k < states; k++) h[k] = load<V>(state + k * V::N);
  const int64_t first = steps.row(0), turn = steps.reverse ? -1 : 1;
  const N *bt = b + first * p.states + n, *ct = c + first * p.states + n;
  int64_t t = first * V::N;
  for (int i = 0; i < steps.count; i++) {
    next.go(i);
    if (w.restart[i]) {
#pragma GCC unroll 8
      for (int k = 0; k < states; k++) h[k] = zero<V>();
    }
    const V delta = load<V>(w.delta + t), x = load<V>(w.x + t);
    V even = load<V>(w.y + t), odd = zero<V>();
#pragma GCC unroll 8
    for (int k = 0; k < states; k++) {
      const V entering = x * projected<both, V>(p.b, bt, constant_b, k);
      h[k] = muladd(decay<any>(delta, load<V>(a + k * V::N)), h[k], entering);
      const V c_k = projected<both, V>(p.c, ct, constant_c, k);
      if (k % 2) {
        odd = muladd(h[k], c_k, odd);
      } else {
        even = muladd(h[k], c_k, even);
      }
    }
    store(w.y + t, even + odd);
    t += turn * V::N;
    bt += turn * p.states;
    ct += turn * p.states;
  }
#pragma GCC unroll 8
  for (int k = 0; k < states; k++) store(state + k * V::N, h[k]);
}

template <bool any, bool both, class V, class N>
SUFFUSE_INLINE void scan_tile(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                              const Steps& steps, const Ahead& ahead) {
  const int64_t row = ((at.batch * p.groups + at.group) * p.length + steps.begin()) * p.states;
  const N* b = static_cast<const N*>(p.b.packed) + (p.b.varying ? row : 0);
  const N* c = static_cast<const N*>(p.c.packed) + (p.c.varying ? row : 0);
  int pass = 0;
  const auto run = [&](auto states, int n) {
    scan_states<decltype(states)::value, any, both>(p, w, b, c, steps, n, ahead.pair(pass++));
  };
  const int states = at.last_state - at.first_state;
  int n = at.first_state;
  for (; n + 8 <= at.last_state; n += 8) run(std::integral_constant<int, 8>(), n);
  if (states & 4) run(std::integral_constant<int, 4>(), (n += 4) - 4);
  if (states & 2) run(std::integral_constant<int, 2>(), (n += 2) - 2);
  if (states & 1) run(std::integral_constant<int, 1>(), n);
  ahead.rest(pass);
}

// What the tile after `steps` reads and writes.
template <class S>
SUFFUSE_INLINE Ahead ahead_of(const SelectiveScanParams& p, const Lanes& at, const Steps& steps) {
  Ahead ahead;
  const Steps next{steps.first + steps.count, steps.count, steps.reverse, steps.length};
  if (next.first + next.count > p.length) return ahead;
  const int64_t begin = next.begin();
  ahead.add<S>(p.delta, at, begin);
  ahead.add<S>(p.u, at, begin);
  ahead.add<S>(p.z, at, begin);
  ahead.add<S>(dense_rows(p, p.out), at, begin);
  return ahead;
}

// silu(z), in rows. Made before anything of the tile is stored: where rows are a multiple of 4 KiB
// long, a load would wait for every store to the same place of a page.
template <class V, class S, class N>
SUFFUSE_INLINE void load_gate(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                              const Steps& steps) {
  const int64_t begin = steps.begin();
  if (p.z.time != 1) load_tile<V, S>(w.z, p.z, at, begin, steps.count);
  for (int t = 0; t < steps.count; t += V::N) {
    const int count = static_cast<int>(smaller(V::N, steps.count - t));
    V row[V::N];
    if (p.z.time == 1) {
      load_rows(row, first_row<S>(p.z, at, begin + t), p.z.channel, at.count, count);
    } else {
      rows_of_tile(row, w.z, t);
    }
    for (int i = 0; i < V::N; i++) store(w.gate + (t + i) * V::N, silu_fast(row[i]));
  }
}

// The tile's delta' and delta' u; besides C h, its results are skip u, and the gate, which parts of
// the states leave for the end.
template <class V, class S, class N>
SUFFUSE_INLINE void load_inputs(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                                const Steps& steps) {
  load_tile<V, S>(w.delta, p.delta, at, steps.begin(), steps.count);
  discretise(w.delta, steps.count, load_channels<V, N>(p.bias, at), p.softplus);
  const bool alone = scan_parts(p) == 1, skips = alone && p.skip;
  const V skip = load_channels<V, N>(p.skip, at);
  for_steps<V, S>(p.u, at, steps.begin(), steps.count, [&](int t, V u) {
    store(w.x + t * V::N, u * load<V>(w.delta + t * V::N));
    store(w.y + t * V::N, skips ? u * skip : zero<V>());
  });
  if (alone && p.z.data) load_gate<V, S>(p, w, at, steps);
  if (!p.sequence) return;
  for (int i = 0; i < steps.count; i++) w.restart[i] = restarts(p, at.batch, steps, i);
}

template <class V, class S, class N>
SUFFUSE_INLINE void store_outputs(const SelectiveScanParams& p, Workspace<V, N>& w, const Lanes& at,
                                  const Steps& steps) {
  const int64_t begin = steps.begin();
  for (int t = 0; t < steps.count; t += V::N) {
    const int count = static_cast<int>(smaller(V::N, steps.count - t));
    V row[V::N];
    rows_of_tile(row, w.y, t);
    if (p.z.data) {
#pragma GCC unroll 16
      for (int i = 0; i < V::N; i++) row[i] *= load<V>(w.gate + (t + i) * V::N);
    }
    const S* to = first_row<S>(dense_rows(p, p.out), at, begin + t);
    store_rows(const_cast<S*>(to), p.length, at.count, count, row);
  }
}

template <class V, class S, class N>
void scan_lanes(const SelectiveScanParams& p, const Lanes& at) {
  Workspace<V, N> w;
  const int64_t size = p.states * V::N;
  w.a = static_cast<N*>(selective_scan_scratch(4 * size * static_cast<int64_t>(sizeof(N))));
  w.h = w.a + size;
  w.b = w.h + size;
  w.c = w.b + size;
  load_states<V>(w.a, p.a, at.channel, p.states, at, static_cast<N>(kLog2e));
  load_states<V>(w.h, p.initial, at.batch * p.channels + at.channel, p.states, at);
  if (!p.b.varying) load_states<V>(w.b, p.b.data, at.channel, p.states, at);
  if (!p.c.varying) load_states<V>(w.c, p.c.data, at.channel, p.states, at);
  // Without softplus a step may be negative.
  const bool unusual = !p.softplus || any_unusual(w.a, at.first_state * V::N, at.last_state * V::N);
  const int64_t tile = tile_steps<S>(p, at);
  for (int64_t first = 0; first < p.length; first += tile) {
    const Steps steps{first, static_cast<int>(smaller(tile, p.length - first)), p.reverse,
                      p.length};
    if (p.chunk_states) {
      N* to = chunk_state<N>(p, at, first / p.chunk) + at.part * V::N;
      for (int64_t n = at.first_state; n < at.last_state; n++) {
        store(to + n * kScanLanes, load<V>(w.h + n * V::N));
      }
    }
    const Ahead ahead = ahead_of<S>(p, at, steps);
    load_inputs<V, S>(p, w, at, steps);
    for_kind(p, unusual, [&](auto any, auto both) {
      scan_tile<any.value, both.value>(p, w, at, steps, ahead);
    });
    if (scan_parts(p) == 1) {
      store_outputs<V, S>(p, w, at, steps);
    } else {
      leave_row<V>(p, at, 1, 0, steps, w.y);
    }
  }
  store_states<V>(p.last, at.batch * p.channels + at.channel, p.states, at, w.h);
}

// The results of one window from what all parts of the states have left.
template <class V, class S, class N>
void join_lanes(const SelectiveScanParams& p, const Lanes& at, int64_t window) {
  Workspace<V, N> w;
  const int64_t first = window * kScanSteps;
  const Steps steps{first, static_cast<int>(smaller(kScanSteps, p.length - first)), false,
                    p.length};
  const V skip = load_channels<V, N>(p.skip, at);
  for_steps<V, S>(p.u, at, first, steps.count,
                  [&](int t, V u) { store(w.y + t * V::N, p.skip ? skip * u : zero<V>()); });
  if (p.z.data) load_gate<V, S>(p, w, at, steps);
  add_parts_of_row<V>(w.y, p, at, 1, 0, steps);
  store_outputs<V, S>(p, w, at, steps);
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
  const int64_t blocks = scan_blocks(p), of_group = scan_blocks_of_group(p), parts = scan_parts(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t block = unit / parts % blocks;
      selective_scan::for_lanes<V>(
          p, unit / parts / blocks, block / of_group, block % of_group, unit % parts,
          [&](const selective_scan::Lanes& at) { selective_scan::scan_lanes<V, S, N>(p, at); });
    }
  });
}

void selective_scan_join_range(const SelectiveScanParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t blocks = scan_blocks(p), of_group = scan_blocks_of_group(p);
  const int64_t windows = scan_windows(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t block = unit / windows % blocks;
      selective_scan::for_lanes<V>(p, unit / windows / blocks, block / of_group, block % of_group,
                                   0, [&](const selective_scan::Lanes& at) {
                                     selective_scan::join_lanes<V, S, N>(p, at, unit % windows);
                                   });
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
