// Tiles of channels x steps with the channels on the lanes, and where a block of channels lies.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/selective_scan/params.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// The vector and the number of the arithmetic for a storage type.
template <class S>
struct LanesOf {
  using type = Vec<float>;
  using number = float;
};
template <>
struct LanesOf<double> {
  using type = Vec<double>;
  using number = double;
};

SUFFUSE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Up to V::N channels of one group; the lanes behind them count nothing.
struct Lanes {
  int64_t batch, group, channel, block;  // first channel, block of all channels
  int part, count;                       // lanes [part V::N, part V::N + count) of the block
};

// Steps [first, first + count) of the scan; `step` is where the scan's step i lies in time.
struct Steps {
  int64_t first;
  int count;
  bool reverse;
  int64_t length;

  SUFFUSE_INLINE int64_t begin() const { return reverse ? length - first - count : first; }
  // Where the scan's i-th step lies among the tile's rows, which are in the order of time.
  SUFFUSE_INLINE int row(int i) const { return reverse ? count - 1 - i : i; }
  SUFFUSE_INLINE int64_t time(int i) const { return begin() + row(i); }
};

// to[t V::N + lane], t < count: rows in the order of time, lanes behind the last channel 0.
template <class V, class S, class N>
SUFFUSE_INLINE void load_tile(N* to, const ScanRows& from, const Lanes& at, int64_t begin,
                              int count) {
  const S* base = static_cast<const S*>(from.data) + at.batch * from.batch +
                  at.channel * from.channel + begin * from.time;
  if (from.time != 1) {  // channels are adjacent
    for (int t = 0; t < count; t++) {
      store(to + t * V::N, at.count == V::N ? load<V>(base + t * from.time)
                                            : load<V>(base + t * from.time, at.count));
    }
    return;
  }
  for (int t = 0; t < count; t += V::N) {
    const int steps = static_cast<int>(smaller(V::N, count - t));
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      row[i] = i >= at.count   ? zero<V>()
               : steps == V::N ? load<V>(base + i * from.channel + t)
                               : load<V>(base + i * from.channel + t, steps);
    }
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) store(to + (t + i) * V::N, row[i]);
  }
}

// The tile back to a contiguous tensor [batch, channel, time].
template <class V, class S, class N>
SUFFUSE_INLINE void store_tile(void* to, int64_t channels, int64_t length, const N* from,
                               const Lanes& at, int64_t begin, int count) {
  S* base = static_cast<S*>(to) + (at.batch * channels + at.channel) * length + begin;
  for (int t = 0; t < count; t += V::N) {
    const int steps = static_cast<int>(smaller(V::N, count - t));
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) row[i] = load<V>(from + (t + i) * V::N);
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      if (i >= at.count) continue;
      if (steps == V::N) {
        store(base + i * length + t, row[i]);
      } else {
        store(base + i * length + t, row[i], steps);
      }
    }
  }
}

// A matrix [channels, states] of this block's rows as to[n V::N + lane]; null is 0.
template <class V, class N>
SUFFUSE_INLINE void load_states(N* to, const void* from, int64_t row, int64_t states, int count,
                                N factor = N(1)) {
  const N* base = static_cast<const N*>(from) + row * states;
  for (int64_t n = 0; n < states; n++) {
    for (int i = 0; i < V::N; i++) {
      to[n * V::N + i] = from && i < count ? factor * base[i * states + n] : N(0);
    }
  }
}

template <class V, class N>
SUFFUSE_INLINE void store_states(void* to, int64_t row, int64_t states, int count, const N* from) {
  N* base = static_cast<N*>(to) + row * states;
  for (int64_t n = 0; n < states; n++) {
    for (int i = 0; i < count; i++) base[i * states + n] = from[n * V::N + i];
  }
}

template <class V, class N>
SUFFUSE_INLINE V load_channels(const void* from, const Lanes& at) {
  return from ? load<V>(static_cast<const N*>(from) + at.channel, at.count) : zero<V>();
}

// The block's lanes of the state before chunk `chunk`.
template <class N>
SUFFUSE_INLINE N* chunk_state(const SelectiveScanParams& p, const Lanes& at, int64_t chunk) {
  const int64_t block = (at.batch * scan_chunks(p) + chunk) * scan_blocks(p) + at.block;
  return static_cast<N*>(p.chunk_states) + block * p.states * kScanLanes;
}

// e^(delta A) as a power of 2; `any` where an A is positive and so the result may overflow.
template <bool any, class V>
SUFFUSE_INLINE V decay(V exponent) {
  return any ? exp2(exponent) : exp2_decay(exponent);
}

template <class V, class N>
SUFFUSE_INLINE bool any_positive(const N* a, int64_t states) {
  bool positive = false;
  for (int64_t i = 0; i < states * V::N; i++) positive = positive || !(a[i] <= N(0));
  return positive;
}

// Row n of B or C at one step. `both`: B and C vary in time, known when compiled, which keeps a
// branch out of the innermost loop.
template <bool both, class V, class N>
SUFFUSE_INLINE V projected(const ScanProjection& p, const N* packed, const N* constant, int n) {
  return both || p.varying ? V(packed[n]) : load<V>(constant + n * V::N);
}

// Calls fn(positive, both) with two compile-time booleans: whether an A may be positive, and
// whether both B and C vary.
template <class Fn>
SUFFUSE_INLINE void for_kind(const SelectiveScanParams& p, bool positive, Fn fn) {
  if (p.b.varying && p.c.varying) {
    if (positive) {
      fn(std::true_type(), std::true_type());
    } else {
      fn(std::false_type(), std::true_type());
    }
  } else {
    fn(std::true_type(), std::false_type());
  }
}

// delta' in place of delta.
template <class V, class N>
SUFFUSE_INLINE void discretise(N* delta, int count, V bias, bool with_softplus) {
  for (int t = 0; t < count; t++) {
    const V x = load<V>(delta + t * V::N) + bias;
    store(delta + t * V::N, with_softplus ? softplus(x) : x);
  }
}

// Whether the state restarts before the scan's step i.
SUFFUSE_INLINE bool restarts(const SelectiveScanParams& p, int64_t batch, const Steps& steps,
                             int i) {
  if (!p.sequence || steps.first + i == 0) return false;
  const int64_t t = steps.time(i), before = p.reverse ? t + 1 : t - 1;
  const int32_t* sequence = p.sequence + batch * p.length;
  return sequence[t] != sequence[before];
}

// Calls fn(lanes) for each group of V::N channels of block `block` of group `group`.
template <class V, class Fn>
SUFFUSE_INLINE void for_lanes(const SelectiveScanParams& p, int64_t batch, int64_t group,
                              int64_t block, Fn fn) {
  const int64_t size = p.channels / p.groups, first = block * kScanLanes;
  const int64_t count = smaller(kScanLanes, size - first);
  const int64_t number = group * scan_blocks_of_group(p) + block;
  for (int part = 0; part * V::N < count; part++) {
    fn(Lanes{batch, group, group * size + first + part * V::N, number, part,
             static_cast<int>(smaller(V::N, count - part * V::N))});
  }
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
