// Numbers on the lanes, real or complex, and the steps of the recurrence on a tile of them.
#pragma once

#include <cstdint>

#include "ops/linear_scan/params.h"
#include "simd/channel_tile.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

// A number of each lane: real, or complex as two vectors.
template <class V, bool complex>
struct Number {
  V part[complex ? 2 : 1];
};

template <bool complex>
constexpr int kParts = complex ? 2 : 1;

template <class V, bool complex>
SUFFUSE_INLINE Number<V, complex> constant_number(V real) {
  Number<V, complex> x;
  for (V& part : x.part) part = zero<V>();
  x.part[0] = real;
  return x;
}

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
SUFFUSE_INLINE Number<V, complex> load_row(const N* tile, int64_t t) {
  Number<V, complex> x;
  for (int i = 0; i < kParts<complex>; i++) {
    x.part[i] = load<V>(tile + (t * kParts<complex> + i) * V::N);
  }
  return x;
}

template <class V, bool complex, class N>
SUFFUSE_INLINE void store_row(N* tile, int64_t t, const Number<V, complex>& x) {
  for (int i = 0; i < kParts<complex>; i++) {
    store(tile + (t * kParts<complex> + i) * V::N, x.part[i]);
  }
}

// `count` numbers, one a lane, `stride` numbers apart.
template <class V, bool complex, class N, class S>
SUFFUSE_INLINE Number<V, complex> gather(const S* from, int64_t stride, int count) {
  alignas(64) N lanes[kParts<complex> * V::N] = {};
  for (int i = 0; i < count; i++) {
    for (int part = 0; part < kParts<complex>; part++) {
      store(lanes + part * V::N + i, load<V>(from + i * stride * kParts<complex> + part, 1), 1);
    }
  }
  return load_row<V, complex>(lanes, 0);
}

template <class V, bool complex, class N>
SUFFUSE_INLINE void scatter(N* to, int count, const Number<V, complex>& x) {
  alignas(64) N lanes[kParts<complex> * V::N];
  store_row(lanes, 0, x);
  for (int i = 0; i < count; i++) {
    for (int part = 0; part < kParts<complex>; part++) {
      to[i * kParts<complex> + part] = lanes[part * V::N + i];
    }
  }
}

// What goes from step to step.
template <class V, bool complex>
struct Carry {
  Number<V, complex> state;
  Number<V, complex> before;  // a of the step before; 1 at first
  Number<V, complex> decay;   // a where it is the same at all steps
};

template <class N>
struct Tile {
  const N* a;  // not read where it is the same at all steps
  N* x;        // replaced by h
  int count;
  bool reverse;
};

// The steps of a tile; bit i of restarts: the state is 0 before the i-th of them.
template <class V, bool complex, bool constant, bool lagged, bool may_restart, class N>
SUFFUSE_INLINE void run_steps(const Tile<N>& tile, uint64_t restarts, Carry<V, complex>& carry) {
  Carry<V, complex> c = carry;
  const int step = tile.reverse ? -1 : 1;
  int t = tile.reverse ? tile.count - 1 : 0;
#pragma GCC unroll 4
  for (int i = 0; i < tile.count; i++, t += step) {
    Number<V, complex> a = c.decay;
    if (!constant) a = load_row<V, complex>(tile.a, t);
    if (may_restart && (restarts >> i & 1)) c.state = constant_number<V, complex>(zero<V>());
    c.state = advance(lagged ? c.before : a, c.state, load_row<V, complex>(tile.x, t));
    c.before = a;
    store_row(tile.x, t, c.state);
  }
  carry = c;
}

}  // namespace linear_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
