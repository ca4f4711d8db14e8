// linear_scan: channels on the lanes, tiles of steps, so that the only chain is the recurrence.
#include "ops/linear_scan/cpu/kernel.h"

#include "simd/channel_tile.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

constexpr int kTile = 16;

struct Lanes {
  int64_t batch, channel;
  int count;
};

// A number of each lane: real, or complex as two vectors.
template <class V, bool complex>
struct Number {
  V part[complex ? 2 : 1];
};

template <class V, bool complex>
SUFFUSE_INLINE Number<V, complex> multiply(const Number<V, complex>& a,
                                           const Number<V, complex>& b) {
  if constexpr (complex) {
    return {{fms(a.part[0], b.part[0], a.part[1] * b.part[1]),
             muladd(a.part[0], b.part[1], a.part[1] * b.part[0])}};
  } else {
    return {{a.part[0] * b.part[0]}};
  }
}

// a h + x
template <class V, bool complex>
SUFFUSE_INLINE Number<V, complex> advance(const Number<V, complex>& a, const Number<V, complex>& h,
                                          const Number<V, complex>& x) {
  if constexpr (complex) {
    const V real = muladd(a.part[0], h.part[0], x.part[0]);
    const V imaginary = muladd(a.part[0], h.part[1], x.part[1]);
    return {{fnma(a.part[1], h.part[1], real), muladd(a.part[1], h.part[0], imaginary)}};
  } else {
    return {{muladd(a.part[0], h.part[0], x.part[0])}};
  }
}

// Row t of a tile: parts lie next to each other, as the steps of a complex row do in memory.
template <class V, bool complex, class N>
SUFFUSE_INLINE Number<V, complex> load_row(const N* tile, int t) {
  Number<V, complex> x;
  for (int i = 0; i < (complex ? 2 : 1); i++) {
    x.part[i] = load<V>(tile + (t * (complex ? 2 : 1) + i) * V::N);
  }
  return x;
}

template <class V, bool complex, class N>
SUFFUSE_INLINE void store_row(N* tile, int t, const Number<V, complex>& x) {
  for (int i = 0; i < (complex ? 2 : 1); i++) {
    store(tile + (t * (complex ? 2 : 1) + i) * V::N, x.part[i]);
  }
}

// `count` numbers, one a lane, `stride` numbers apart.
template <class V, bool complex, class N, class S>
SUFFUSE_INLINE Number<V, complex> gather(const S* from, int64_t stride, int count) {
  constexpr int kParts = complex ? 2 : 1;
  alignas(64) N lanes[kParts * V::N] = {};
  for (int i = 0; i < count; i++) {
    for (int part = 0; part < kParts; part++) {
      const V one = load<V>(from + i * stride * kParts + part, 1);
      N values[V::N];
      store(values, one);
      lanes[part * V::N + i] = values[0];
    }
  }
  return load_row<V, complex>(lanes, 0);
}

template <class V, bool complex, class N>
SUFFUSE_INLINE void scatter(N* to, int count, const Number<V, complex>& x) {
  constexpr int kParts = complex ? 2 : 1;
  N lanes[kParts * V::N];
  store_row(lanes, 0, x);
  for (int i = 0; i < count; i++) {
    for (int part = 0; part < kParts; part++) to[i * kParts + part] = lanes[part * V::N + i];
  }
}

template <class V, class S, bool complex, class N>
SUFFUSE_INLINE void load_steps(N* to, const LinearScanRows& rows, const Lanes& at, int64_t time,
                               int count) {
  constexpr int kParts = complex ? 2 : 1;
  const S* from = static_cast<const S*>(rows.data) +
                  (at.batch * rows.batch + at.channel * rows.channel + time * rows.time) * kParts;
  load_channel_tile<V>(to, from, rows.channel * kParts, rows.time, at.count, count * kParts);
}

template <class V, class A, class S, class N, bool complex>
void scan_lanes(const LinearScanParams& p, const Lanes& at) {
  constexpr int kParts = complex ? 2 : 1;
  alignas(64) N a_tile[kTile * kParts * V::N], x_tile[kTile * kParts * V::N];
  const int64_t row = at.batch * p.channels + at.channel;
  Number<V, complex> state = {}, a, one = {};
  for (V& part : state.part) part = zero<V>();
  if (p.initial) {
    state = gather<V, complex, N>(static_cast<const N*>(p.initial) + row * kParts, 1, at.count);
  }
  for (V& part : one.part) part = zero<V>();
  one.part[0] = V(1);
  const bool constant = p.a.time == 0;
  if (constant) {
    const A* from = static_cast<const A*>(p.a.data) +
                    (at.batch * p.a.batch + at.channel * p.a.channel) * kParts;
    a = gather<V, complex, N>(from, p.a.channel, at.count);
  }
  Number<V, complex> before = one;  // a of the step before
  for (int64_t first = 0; first < p.length; first += kTile) {
    const int count = static_cast<int>(p.length - first < kTile ? p.length - first : kTile);
    const int64_t begin = p.reverse ? p.length - first - count : first;
    if (!constant) load_steps<V, A, complex>(a_tile, p.a, at, begin, count);
    load_steps<V, S, complex>(x_tile, p.x, at, begin, count);
    for (int i = 0; i < count; i++) {
      const int t = p.reverse ? count - 1 - i : i;
      if (!constant) a = load_row<V, complex>(a_tile, t);
      if (p.sequence && first + i > 0) {
        const int32_t* sequence = p.sequence + at.batch * p.length + begin + t;
        if (sequence[0] != sequence[p.reverse ? 1 : -1]) {
          for (V& part : state.part) part = zero<V>();
        }
      }
      state = advance(p.lagged ? before : a, state, load_row<V, complex>(x_tile, t));
      before = a;
      store_row(x_tile, t, state);
    }
    S* to = static_cast<S*>(p.h.data) +
            (at.batch * p.h.batch + at.channel * p.h.channel + begin * p.h.time) * kParts;
    store_channel_tile<V>(to, x_tile, p.h.channel * kParts, p.h.time, at.count, count * kParts);
  }
  if (p.lagged) state = multiply(before, state);
  scatter(static_cast<N*>(p.last) + row * kParts, at.count, state);
}

template <class A, class S>
void scan_block(const LinearScanParams& p, int64_t unit) {
  using V = typename LanesOf<S>::type;
  using N = typename LanesOf<S>::number;
  const int64_t blocks = linear_scan_blocks(p), first = unit % blocks * kLinearScanLanes;
  const int64_t end = first + kLinearScanLanes < p.channels ? first + kLinearScanLanes : p.channels;
  for (int64_t c = first; c < end; c += V::N) {
    const Lanes at{unit / blocks, c, static_cast<int>(end - c < V::N ? end - c : V::N)};
    if constexpr (sizeof(S) > 2) {
      if (p.complex) {
        scan_lanes<V, A, S, N, true>(p, at);
        continue;
      }
    }
    scan_lanes<V, A, S, N, false>(p, at);
  }
}

}  // namespace linear_scan

void linear_scan_range(const LinearScanParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    for (int64_t unit = begin; unit < end; unit++) {
      if (sizeof(S) == 2 && p.a_dtype == DType::f32) {
        linear_scan::scan_block<typename LanesOf<S>::number, S>(p, unit);
      } else {
        linear_scan::scan_block<S, S>(p, unit);
      }
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
