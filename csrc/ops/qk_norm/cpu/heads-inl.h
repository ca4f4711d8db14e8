// What the CPU kernels of qk_norm have in common: tokens, their heads and their angles.
#pragma once

#include "ops/qk_norm/params.h"
#include "simd/rotation.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace qk_norm {

// Calls body(batch, time, table row) for the tokens [begin, end).
template <class T, class Body>
SUFFUSE_INLINE void for_tokens(const QkNormParams& p, bool inverse, int64_t begin, int64_t end,
                               Body&& body) {
  if (begin >= end) return;
  int64_t batch = begin / p.length, time = begin % p.length;
  for (int64_t token = begin; token < end; token++) {
    const int64_t row = batch * p.table_batch + time * p.table_row;
    const TableRow<T> table = {static_cast<const T*>(p.cos) + row,
                               static_cast<const T*>(p.sin) + row, p.rotated / 2, p.interleaved,
                               inverse};
    body(batch, time, table);
    if (++time == p.length) {
      time = 0;
      batch++;
    }
  }
}

template <class S>
SUFFUSE_INLINE S* first_head(const HeadRows& rows, int64_t batch, int64_t time) {
  return static_cast<S*>(rows.data) + batch * rows.batch + time * rows.time;
}

// Rotates the first columns of a head; the others go through as they are.
template <class V, class T, class Read, class Write>
SUFFUSE_INLINE void rotate_head(const QkNormParams& p, const TableRow<T>& table,
                                PairAngles<T>& angles, Read&& read, Write&& write) {
  rotate_columns<V>(table, angles, read, write);
  for_columns<V>(p.columns - p.rotated, [&](int64_t i, int n, auto partial) {
    write(p.rotated + i, n, partial, read(p.rotated + i, n, partial));
  });
}

// The weights from column i on, 1 where there are none.
template <class V, bool kPartial, class T>
SUFFUSE_INLINE V weights(const T* weight, int64_t i, int n) {
  return weight ? load_columns<V, kPartial>(weight + i, n) : V(T(1));
}

// 1 / sqrt(sum / columns + eps)
template <class T>
SUFFUSE_INLINE T inverse_rms(const QkNormParams& p, T sum) {
  return T(1) / lane_sqrt(sum / static_cast<T>(p.columns) + static_cast<T>(p.eps));
}

}  // namespace qk_norm
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
