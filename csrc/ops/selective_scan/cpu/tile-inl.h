// Tiles of channels x steps with the channels on the lanes, and where a block of channels lies.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/selective_scan/params.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

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
  int states_part, first_state, last_state;
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

// Up to V::N rows of up to V::N steps; the others are 0.
template <class V, class S>
SUFFUSE_INLINE void load_rows(V (&row)[V::N], const S* from, int64_t stride, int count, int steps) {
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    row[i] = i >= count      ? zero<V>()
             : steps == V::N ? load<V>(from + i * stride)
                             : load<V>(from + i * stride, steps);
  }
}
template <class V, class S>
SUFFUSE_INLINE void store_rows(S* to, int64_t stride, int count, int steps, const V (&row)[V::N]) {
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    if (i >= count) continue;
    if (steps == V::N) {
      store(to + i * stride, row[i]);
    } else {
      store(to + i * stride, row[i], steps);
    }
  }
}

// Steps t to t + V::N - 1 of a tile as rows.
template <class V, class N>
SUFFUSE_INLINE void rows_of_tile(V (&row)[V::N], const N* tile, int t) {
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) row[i] = load<V>(tile + (t + i) * V::N);
  transpose(row);
}

// Where a block's rows begin at step `begin`.
template <class S>
SUFFUSE_INLINE const S* first_row(const ScanRows& rows, const Lanes& at, int64_t begin) {
  return static_cast<const S*>(rows.data) + at.batch * rows.batch + at.channel * rows.channel +
         begin * rows.time;
}
SUFFUSE_INLINE ScanRows dense_rows(const SelectiveScanParams& p, const void* data) {
  return {data, p.channels * p.length, p.length, 1};
}

// Calls fn(t, the channels at step t) for t < count, where steps are adjacent for whole vectors of
// them; lanes behind the last channel are 0.
template <class V, class S, class Fn>
SUFFUSE_INLINE void for_steps(const ScanRows& from, const Lanes& at, int64_t begin, int count,
                              Fn fn) {
  const S* base = first_row<S>(from, at, begin);
  if (from.time != 1) {  // channels are adjacent
    for (int t = 0; t < count; t++) {
      fn(t, at.count == V::N ? load<V>(base + t * from.time)
                             : load<V>(base + t * from.time, at.count));
    }
    return;
  }
  for (int t = 0; t < count; t += V::N) {
    V row[V::N];
    load_rows(row, base + t, from.channel, at.count, static_cast<int>(smaller(V::N, count - t)));
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) fn(t + i, row[i]);
  }
}

// to[t V::N + lane], t < count: rows in the order of time.
template <class V, class S, class N>
SUFFUSE_INLINE void load_tile(N* to, const ScanRows& from, const Lanes& at, int64_t begin,
                              int count) {
  for_steps<V, S>(from, at, begin, count, [&](int t, V row) { store(to + t * V::N, row); });
}

// The tile back to a contiguous tensor [batch, channel, time].
template <class V, class S, class N>
SUFFUSE_INLINE void store_tile(void* to, const SelectiveScanParams& p, const N* from,
                               const Lanes& at, int64_t begin, int count) {
  S* base = const_cast<S*>(first_row<S>(dense_rows(p, to), at, begin));
  for (int t = 0; t < count; t += V::N) {
    V row[V::N];
    rows_of_tile(row, from, t);
    store_rows(base + t, p.length, at.count, static_cast<int>(smaller(V::N, count - t)), row);
  }
}

// A matrix [channels, states], of which `row` is the first channel's, as to[n V::N + lane]; null is
// 0.
template <class V, class N>
SUFFUSE_INLINE void load_states(N* to, const void* from, int64_t row, int64_t states,
                                const Lanes& at, N factor = N(1)) {
  const N* base = static_cast<const N*>(from) + row * states;
  for (int64_t n = at.first_state; n < at.last_state; n++) {
    for (int i = 0; i < V::N; i++) {
      to[n * V::N + i] = from && i < at.count ? factor * base[i * states + n] : N(0);
    }
  }
}

template <class V, class N>
SUFFUSE_INLINE void store_states(void* to, int64_t row, int64_t states, const Lanes& at,
                                 const N* from) {
  N* base = static_cast<N*>(to) + row * states;
  for (int64_t n = at.first_state; n < at.last_state; n++) {
    for (int i = 0; i < at.count; i++) base[i * states + n] = from[n * V::N + i];
  }
}

template <class V, class N>
SUFFUSE_INLINE V load_channels(const void* from, const Lanes& at) {
  return from ? load<V>(static_cast<const N*>(from) + at.channel, at.count) : zero<V>();
}

// The block's lanes of the state before chunk `chunk`.
template <class N>
SUFFUSE_INLINE N* chunk_state(const SelectiveScanParams& p, const Lanes& at, int64_t chunk) {
  const int64_t block = (at.batch * scan_blocks(p) + at.block) * scan_chunks(p) + chunk;
  return static_cast<N*>(p.chunk_states) + block * p.states * kScanLanes;
}

// 2^(delta A); `any` where an A is beyond what exp2_decay takes.
template <bool any, class V>
SUFFUSE_INLINE V decay(V delta, V a) {
  return any ? exp2(delta * a) : exp2_decay(delta, a);
}

// Whether an A is positive, so that the decay may overflow, or so large that a step below 10^10
// does not keep it in exp2_decay's domain.
template <class N>
SUFFUSE_INLINE bool any_unusual(const N* a, int64_t begin, int64_t end) {
  bool unusual = false;
  for (int64_t i = begin; i < end; i++) {
    unusual = unusual || !(a[i] <= N(0) && a[i] >= N(-1e10));
  }
  return unusual;
}

// Number k of B or C at one step. `both`: B and C vary in time, known when compiled, which keeps a
// branch out of the innermost loop.
template <bool both, class V, class N>
SUFFUSE_INLINE V projected(const ScanProjection& p, const N* packed, const N* constant, int k) {
  return both || p.varying ? V(packed[k]) : load<V>(constant + k * V::N);
}

// Calls fn(any, both) with two compile-time booleans: whether an A may be unusual, and whether both
// B and C vary.
template <class Fn>
SUFFUSE_INLINE void for_kind(const SelectiveScanParams& p, bool any, Fn fn) {
  if (p.b.varying && p.c.varying) {
    if (any) {
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
    store(delta + t * V::N, with_softplus ? softplus_fast(x) : x);
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

// Calls fn(lanes) for each group of V::N channels of block `block` of group `group`, with one part
// of the states.
template <class V, class Fn>
SUFFUSE_INLINE void for_lanes(const SelectiveScanParams& p, int64_t batch, int64_t group,
                              int64_t block, int64_t states_part, Fn fn) {
  const int64_t size = p.channels / p.groups, first = block * kScanLanes;
  const int64_t count = smaller(kScanLanes, size - first);
  const int64_t number = group * scan_blocks_of_group(p) + block;
  for (int part = 0; part * V::N < count; part++) {
    fn(Lanes{batch, group, group * size + first + part * V::N, number, part,
             static_cast<int>(smaller(V::N, count - part * V::N)), static_cast<int>(states_part),
             static_cast<int>(scan_part_begin(p, states_part)),
             static_cast<int>(scan_part_begin(p, states_part + 1))});
  }
}

// Where a part leaves row `row` of `rows` at step `begin` of time.
template <class V, class N>
SUFFUSE_INLINE N* part_row(const SelectiveScanParams& p, const Lanes& at, int64_t part,
                           int64_t rows, int64_t row, int64_t begin) {
  const int64_t block = at.batch * scan_blocks(p) + at.block;
  const int64_t number = (block * scan_parts(p) + part) * rows + row;
  const int64_t steps = scan_windows(p) * kScanSteps;
  return static_cast<N*>(p.workspace) + (number * steps + begin) * kScanLanes + at.part * V::N;
}
template <class V, class N>
SUFFUSE_INLINE void leave_row(const SelectiveScanParams& p, const Lanes& at, int64_t rows,
                              int64_t row, const Steps& steps, const N* from) {
  N* const to = part_row<V, N>(p, at, at.states_part, rows, row, steps.begin());
  for (int t = 0; t < steps.count; t++) store(to + t * kScanLanes, load<V>(from + t * V::N));
}
// Adds what all parts have left to a tile.
template <class V, class N>
SUFFUSE_INLINE void add_parts_of_row(N* to, const SelectiveScanParams& p, const Lanes& at,
                                     int64_t rows, int64_t row, const Steps& steps) {
  for (int64_t part = 0; part < scan_parts(p); part++) {
    const N* const from = part_row<V, N>(p, at, part, rows, row, steps.begin());
    for (int t = 0; t < steps.count; t++) {
      store(to + t * V::N, load<V>(to + t * V::N) + load<V>(from + t * kScanLanes));
    }
  }
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
