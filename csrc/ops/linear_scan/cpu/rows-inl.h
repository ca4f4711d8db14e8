// Rows of adjacent steps: channels on the lanes, in tiles of steps that are transposed, so that the
// only chain is the recurrence.
#pragma once

#include "ops/linear_scan/cpu/number-inl.h"
#include "ops/linear_scan/cpu/square-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

struct Lanes {
  int64_t batch, channel;
  int count;
};

template <class S>
constexpr int kTileSteps = sizeof(S) == 2 ? 32 : 16;

template <class S, bool complex>
SUFFUSE_INLINE S* steps_of(const LinearScanRows& rows, const Lanes& at, int64_t time) {
  return static_cast<S*>(rows.data) +
         (at.batch * rows.batch + at.channel * rows.channel + time * rows.time) * kParts<complex>;
}

// Whether a tile consists of squares.
template <class V, class S>
SUFFUSE_INLINE bool in_squares(const LinearScanRows& rows, const Lanes& at, int numbers) {
  return rows.time == 1 && at.count == V::N && numbers % kSquareSteps<V, S> == 0;
}

template <class V, class S, bool complex, class N>
SUFFUSE_INLINE void load_steps(N* to, const LinearScanRows& rows, const Lanes& at, int64_t time,
                               int count) {
  const S* from = steps_of<const S, complex>(rows, at, time);
  const int64_t stride = rows.channel * kParts<complex>;
  const int numbers = count * kParts<complex>;
  if (!in_squares<V, S>(rows, at, numbers)) {
    return load_channel_tile<V>(to, from, stride, rows.time, at.count, numbers);
  }
  for (int i = 0; i < numbers; i += kSquareSteps<V, S>)
    load_square<V>(to + i * V::N, from + i, stride);
}

template <class V, class S, bool complex, class N>
SUFFUSE_INLINE void store_steps(const N* from, const LinearScanRows& rows, const Lanes& at,
                                int64_t time, int count) {
  S* to = steps_of<S, complex>(rows, at, time);
  const int64_t stride = rows.channel * kParts<complex>;
  const int numbers = count * kParts<complex>;
  if (!in_squares<V, S>(rows, at, numbers)) {
    return store_channel_tile<V>(to, from, stride, rows.time, at.count, numbers);
  }
  for (int i = 0; i < numbers; i += kSquareSteps<V, S>)
    store_square<V>(to + i, from + i * V::N, stride);
}

// Bit i: the i-th of `count` steps, in the order that they are taken in, is of another sequence
// than the one before it.
inline uint64_t restarts_of(const LinearScanParams& p, int64_t batch, int64_t begin, int count) {
  if (!p.sequence) return 0;
  const int32_t* sequence = p.sequence + batch * p.length;
  // Pairs of neighbours (t - 1, t) with t in [first, last) are inside the row.
  const int64_t first = p.reverse ? begin + 1 : begin > 0 ? begin : 1;
  const int64_t end = begin + count + (p.reverse ? 1 : 0), last = end < p.length ? end : p.length;
  uint32_t differ = 0;
  for (int64_t t = first; t < last; t++) {
    differ |= static_cast<uint32_t>(sequence[t] ^ sequence[t - 1]);
  }
  uint64_t restarts = 0;
  for (int64_t t = first; differ != 0 && t < last; t++) {
    const uint64_t differs = sequence[t] != sequence[t - 1];
    restarts |= differs << (p.reverse ? begin + count - t : t - begin);
  }
  return restarts;
}

template <class V, bool complex, bool constant, class N>
SUFFUSE_INLINE void take_tile(const LinearScanParams& p, const Tile<N>& tile, uint64_t restarts,
                              Carry<V, complex>& carry) {
  if (restarts != 0) {
    if (p.lagged) return run_steps<V, complex, constant, true, true>(tile, restarts, carry);
    return run_steps<V, complex, constant, false, true>(tile, restarts, carry);
  }
  if (p.lagged) return run_steps<V, complex, constant, true, false>(tile, 0, carry);
  run_steps<V, complex, constant, false, false>(tile, 0, carry);
}

template <class V, class A, class S, class N, bool complex, bool constant>
void scan_lanes(const LinearScanParams& p, const Lanes& at) {
  constexpr int kTile = kTileSteps<S>, kNumbers = kTile * kParts<complex> * V::N;
  alignas(64) N a_tile[constant ? 1 : kNumbers], x_tile[kNumbers];
  const int64_t row = (at.batch * p.channels + at.channel) * kParts<complex>;
  Carry<V, complex> carry = {constant_number<V, complex>(zero<V>()),
                             constant_number<V, complex>(V(1)),
                             constant_number<V, complex>(zero<V>())};
  if (p.initial) {
    carry.state = gather<V, complex, N>(static_cast<const N*>(p.initial) + row, 1, at.count);
  }
  if (constant) {
    const A* from = steps_of<const A, complex>(p.a, at, 0);
    carry.decay = gather<V, complex, N>(from, p.a.channel, at.count);
  }
  for (int64_t first = 0; first < p.length; first += kTile) {
    const int count = static_cast<int>(p.length - first < kTile ? p.length - first : kTile);
    const int64_t begin = p.reverse ? p.length - first - count : first;
    if (!constant) load_steps<V, A, complex>(a_tile, p.a, at, begin, count);
    load_steps<V, S, complex>(x_tile, p.x, at, begin, count);
    take_tile<V, complex, constant>(p, Tile<N>{a_tile, x_tile, count, p.reverse},
                                    restarts_of(p, at.batch, begin, count), carry);
    store_steps<V, S, complex>(x_tile, p.h, at, begin, count);
  }
  if (p.lagged) carry.state = multiply(carry.before, carry.state);
  scatter(static_cast<N*>(p.last) + row, at.count, carry.state);
}

}  // namespace linear_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
