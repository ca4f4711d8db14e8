// A few long rows of adjacent steps: segments of a row on the lanes. What each does to any state is
// found first, then the states that they start from, then their steps.
#pragma once

#include "ops/linear_scan/cpu/kernel.h"
#include "ops/linear_scan/cpu/rows-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

// Segments next to each other: `count` lanes of `steps` steps.
struct Segments {
  int64_t batch, channel, first;
  int count, steps;
  SUFFUSE_INLINE Lanes row() const { return {batch, channel, 1}; }
  SUFFUSE_INLINE int64_t begin() const { return first * kLinearScanSegment; }
};

// Numbers of a row's segments in the workspace: products of a, and states without any before.
template <bool complex, class N>
SUFFUSE_INLINE N* products_of(const LinearScanWork& p, int64_t row) {
  return static_cast<N*>(p.workspace) + row * 2 * linear_scan_segments(p) * kParts<complex>;
}
template <bool complex, class N>
SUFFUSE_INLINE N* states_of(const LinearScanWork& p, int64_t row) {
  return products_of<complex, N>(p, row) + linear_scan_segments(p) * kParts<complex>;
}

template <class V, class S, bool complex, class N>
SUFFUSE_INLINE void load_segments(N* to, const LinearScanRows& rows, const Segments& at) {
  const S* from = steps_of<const S, complex>(rows, at.row(), at.begin());
  load_channel_tile<V>(to, from, kLinearScanSegment * kParts<complex>, 1, at.count,
                       at.steps * kParts<complex>);
}

// a of the steps before the segments; 1 before the row's first.
template <class V, class A, bool complex, class N>
SUFFUSE_INLINE Number<V, complex> decays_before(const LinearScanWork& p, const Segments& at) {
  constexpr int kWidth = kParts<complex>;
  alignas(64) N lanes[kWidth * V::N] = {};
  for (int i = 0; i < at.count; i++) {
    const int64_t begin = (at.first + i) * kLinearScanSegment;
    const int64_t before = p.reverse ? begin + at.steps : begin - 1;
    const bool none = before < 0 || before >= p.length;
    if (none) lanes[i] = 1;
    for (int part = 0; !none && part < kWidth; part++) {
      store(lanes + part * V::N + i,
            load<V>(steps_of<const A, complex>(p.a, at.row(), before) + part, 1), 1);
    }
  }
  return load_row<V, complex>(lanes, 0);
}

template <class V, class A, bool complex, class N>
SUFFUSE_INLINE Carry<V, complex> start_segments(const LinearScanWork& p, const Segments& at) {
  const Number<V, complex> none = constant_number<V, complex>(zero<V>());
  Carry<V, complex> carry = {none, constant_number<V, complex>(V(1)), none};
  if (p.lagged) carry.before = decays_before<V, A, complex, N>(p, at);
  if (p.a.time == 0) {
    carry.decay = gather<V, complex, N>(steps_of<const A, complex>(p.a, at.row(), 0), 0, at.count);
  }
  return carry;
}

template <class N, bool complex, class V>
constexpr int kSegmentTile = kLinearScanSegment * kParts<complex> * V::N;

template <class V, class A, class S, class N, bool complex>
void sum_segments(const LinearScanWork& p, const Segments& at) {
  alignas(64) N a_tile[kSegmentTile<N, complex, V>], x_tile[kSegmentTile<N, complex, V>];
  const bool constant = p.a.time == 0;
  if (!constant) load_segments<V, A, complex>(a_tile, p.a, at);
  load_segments<V, S, complex>(x_tile, p.x, at);
  Carry<V, complex> carry = start_segments<V, A, complex, N>(p, at);
  Number<V, complex> product = constant_number<V, complex>(V(1));
  for (int i = 0; i < at.steps; i++) {
    const int t = p.reverse ? at.steps - 1 - i : i;
    const Number<V, complex> a = constant ? carry.decay : load_row<V, complex>(a_tile, t);
    const Number<V, complex> taken = p.lagged ? carry.before : a;
    carry.state = advance(taken, carry.state, load_row<V, complex>(x_tile, t));
    product = multiply(taken, product);
    carry.before = a;
  }
  const int64_t row = at.batch * p.channels + at.channel, place = at.first * kParts<complex>;
  scatter(products_of<complex, N>(p, row) + place, at.count, product);
  scatter(states_of<complex, N>(p, row) + place, at.count, carry.state);
}

template <class V, class A, class S, class N, bool complex>
void finish_segments(const LinearScanWork& p, const Segments& at) {
  alignas(64) N a_tile[kSegmentTile<N, complex, V>], x_tile[kSegmentTile<N, complex, V>];
  const int64_t row = at.batch * p.channels + at.channel;
  const bool constant = p.a.time == 0;
  if (!constant) load_segments<V, A, complex>(a_tile, p.a, at);
  load_segments<V, S, complex>(x_tile, p.x, at);
  Carry<V, complex> carry = start_segments<V, A, complex, N>(p, at);
  carry.state = gather<V, complex, N>(states_of<complex, N>(p, row) + at.first * kParts<complex>, 1,
                                      at.count);
  const Tile<N> tile{a_tile, x_tile, at.steps, p.reverse};
  if (constant) {
    take_tile<V, complex, true>(p, tile, 0, carry);
  } else {
    take_tile<V, complex, false>(p, tile, 0, carry);
  }
  store_channel_tile<V>(steps_of<S, complex>(p.h, at.row(), at.begin()), x_tile,
                        kLinearScanSegment * kParts<complex>, 1, at.count,
                        at.steps * kParts<complex>);
}

// The states that the segments of a row start from, in the place of those that they give. False: a
// number left the range, where products say too little.
template <class A, class N, bool complex>
bool chain_segments(const LinearScanWork& p, const Lanes& at) {
  constexpr int kWidth = kParts<complex>;
  const int64_t row = at.batch * p.channels + at.channel, count = linear_scan_segments(p);
  const N* products = products_of<complex, N>(p, row);
  N *states = states_of<complex, N>(p, row), *last = static_cast<N*>(p.last) + row * kWidth;
  N state[2] = {0, 0}, sum = 0;
  for (int part = 0; p.initial && part < kWidth; part++) {
    state[part] = static_cast<const N*>(p.initial)[row * kWidth + part];
  }
  for (int64_t i = 0; i < count; i++) {
    const int64_t place = (p.reverse ? count - 1 - i : i) * kWidth;
    const N* a = products + place;
    N next[2] = {a[0] * state[0] + states[place], 0};
    if (complex) {
      next[0] -= a[1] * state[1];
      next[1] = a[0] * state[1] + a[1] * state[0] + states[place + 1];
    }
    for (int part = 0; part < kWidth; part++) {
      sum += next[part] - next[part];  // NaN where it is infinite, or NaN
      states[place + part] = state[part];
      state[part] = next[part];
    }
  }
  if (p.lagged) {
    const A* a = steps_of<const A, complex>(p.a, at, p.reverse ? 0 : p.length - 1);
    using V = typename LanesOf<N>::type;
    const auto end = gather<V, complex, N>(a, 1, 1);
    N held[2] = {0, 0};
    scatter(held, 1, end);
    const N real = held[0] * state[0] - held[1] * state[1];
    state[1] = held[0] * state[1] + held[1] * state[0];
    state[0] = real;
  }
  for (int part = 0; part < kWidth; part++) last[part] = state[part];
  return sum == 0;
}

// The row is scanned step by step where the products do not serve; its first product then says so.
template <class V, class A, class S, class N, bool complex>
void settle_row(const LinearScanWork& p, int64_t row) {
  const Lanes at{row / p.channels, row % p.channels, 1};
  const bool chained = chain_segments<A, N, complex>(p, at);
  *products_of<complex, N>(p, row) = chained ? 0 : 1;
  if (chained) return;
  if (p.a.time == 0) return scan_lanes<V, A, S, N, complex, true>(p, at);
  scan_lanes<V, A, S, N, complex, false>(p, at);
}

template <class V, class A, class S, class N, bool complex>
void segment_unit(const LinearScanWork& p, LinearScanPhase phase, int64_t unit) {
  if (phase == LinearScanPhase::chain) return settle_row<V, A, S, N, complex>(p, unit);
  const int64_t blocks = linear_scan_segment_blocks(p), row = unit / blocks;
  const int64_t from = unit % blocks * kLinearScanLanes, until = from + kLinearScanLanes;
  const int64_t whole = p.length / kLinearScanSegment, end = until < whole ? until : whole;
  const bool settled = phase == LinearScanPhase::finish && *products_of<complex, N>(p, row) != 0;
  if (settled) return;
  const auto run = phase == LinearScanPhase::sum ? sum_segments<V, A, S, N, complex>
                                                 : finish_segments<V, A, S, N, complex>;
  Segments at{row / p.channels, row % p.channels, from, 0, kLinearScanSegment};
  for (; at.first < end; at.first += V::N) {
    at.count = static_cast<int>(end - at.first < V::N ? end - at.first : V::N);
    run(p, at);
  }
  if (whole < until && whole >= from && whole < linear_scan_segments(p)) {
    at.first = whole;
    at.count = 1;
    at.steps = static_cast<int>(p.length - whole * kLinearScanSegment);
    run(p, at);
  }
}

}  // namespace linear_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
