// Rotations of pairs of columns by the angles in a row of a table. Pairs of columns half a row
// apart are turned the other way by naming them the other way round.
#pragma once

#include <cstdint>
#include <type_traits>

#include "simd/channel_tile.h"
#include "simd/pairs.h"

namespace suffuse {
namespace SUFFUSE_ISA {

// N elements, or the first n of them.
template <class V, bool kPartial, class S>
SUFFUSE_INLINE V load_columns(const S* p, int n) {
  if constexpr (kPartial) {
    return load<V>(p, n);
  } else {
    return load<V>(p);
  }
}
template <bool kPartial, class S, class V>
SUFFUSE_INLINE void store_columns(S* p, V x, int n) {
  if constexpr (kPartial) {
    store(p, x, n);
  } else {
    store(p, x);
  }
}

// Calls body(i, n, partial) for the vectors of `count` columns: n lanes from column i on, partial
// the constant that says whether they are less than all.
template <class V, class Body>
SUFFUSE_INLINE void for_columns(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + V::N <= count; i += V::N) body(i, V::N, std::false_type());
  if (i < count) body(i, static_cast<int>(count - i), std::true_type());
}

// Two columns of a pair.
template <class V>
SUFFUSE_INLINE void rotate(V& a, V& b, V cos, V sin) {
  const V first = muladd(-b, sin, a * cos);
  b = muladd(a, sin, b * cos);
  a = first;
}

// Pairs side by side; the angles as PairAngles has them.
template <class V>
SUFFUSE_INLINE V rotate_pairs(V x, V cos, V sin) {
  return muladd(swap_pairs(x), sin, x * cos);
}

// The angles of pairs side by side: each cosine twice, each sine first negative. A piece of a
// table's row, in T, the type of the arithmetic.
template <class T>
class PairAngles {
 public:
  static constexpr int64_t kPairs = 256;  // of a piece

  // Those of the pairs [first, first + count); nothing is read again if they are there already.
  template <class C>
  SUFFUSE_INLINE void take(const C* cos_row, const C* sin_row, int64_t first, int64_t count,
                           bool inverse) {
    if (from_ == cos_row + first) return;
    from_ = cos_row + first;
    using V = Vec<T>;
    const V even(inverse ? T(1) : T(-1)), odd = -even;
    for_columns<V>(count, [&](int64_t i, int n, auto partial) {
      const V c = load_columns<V, partial>(cos_row + first + i, n);
      const V s = load_columns<V, partial>(sin_row + first + i, n);
      spread(cos + 2 * i, c, c);
      spread(sin + 2 * i, even * s, odd * s);
    });
  }

  alignas(64) T cos[2 * kPairs], sin[2 * kPairs];

 private:
  // a0 b0 a1 b1 ...
  static SUFFUSE_INLINE void spread(T* to, Vec<T> a, Vec<T> b) {
    if constexpr (sizeof(T) == 4) {
      interleave(a, b);
      store(to, a);
      store(to + Vec<T>::N, b);
    } else {
      for (int i = 0; i < Vec<T>::N; i++) {
        to[2 * i] = a.v[i];
        to[2 * i + 1] = b.v[i];
      }
    }
  }

  const void* from_ = nullptr;
};

// A row of the tables, and what is made of it.
template <class C>
struct TableRow {
  const C *cos, *sin;
  int64_t pairs;
  bool interleaved, inverse;
};

// Rotates the columns of a head: read(i, n, partial) gives those from column i on, write(i, n,
// partial, x) takes them, with n and partial of for_columns.
template <class V, class C, class T, class Read, class Write>
SUFFUSE_INLINE void rotate_columns(const TableRow<C>& row, PairAngles<T>& angles, Read&& read,
                                   Write&& write) {
  if (!row.interleaved) {
    const int64_t front = row.inverse ? row.pairs : 0, back = row.pairs - front;
    for_columns<V>(row.pairs, [&](int64_t i, int n, auto partial) {
      V a = read(front + i, n, partial), b = read(back + i, n, partial);
      rotate(a, b, load_columns<V, partial>(row.cos + i, n),
             load_columns<V, partial>(row.sin + i, n));
      write(front + i, n, partial, a);
      write(back + i, n, partial, b);
    });
    return;
  }
  constexpr int64_t kPiece = PairAngles<T>::kPairs;
  for (int64_t first = 0; first < row.pairs; first += kPiece) {
    const int64_t count = row.pairs - first < kPiece ? row.pairs - first : kPiece;
    angles.take(row.cos, row.sin, first, count, row.inverse);
    for_columns<V>(2 * count, [&](int64_t i, int n, auto partial) {
      const V c = load<V>(angles.cos + i), s = load<V>(angles.sin + i);
      write(2 * first + i, n, partial, rotate_pairs(read(2 * first + i, n, partial), c, s));
    });
  }
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
