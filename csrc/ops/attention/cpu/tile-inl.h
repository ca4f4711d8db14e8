// What the forward and the backward kernel share: register tiles, the window of keys, packing.
//
// Queries lie on the vector lanes. A panel is W vectors of queries; scores are computed as
// S^T[key][query] = K Q^T and outputs as O^T[d][query] += V^T P^T, so that K and V are only ever
// broadcast from memory and the softmax has no horizontal operation. Only Q and O pass a transpose
// in registers, once per panel.
#pragma once

#include <cstdint>
#include <type_traits>

#include "math/online_softmax.h"
#include "ops/attention/cpu/kernel.h"
#include "ops/attention/sequence.h"
#include "simd/math.h"
#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

// The widest panel in vectors, and rows of a register tile for a panel of W vectors: as many sums
// as the registers hold beside their operands (32 registers or 16), at least eight to cover the
// latency of the multiply-add.
#if defined(__AVX512F__)
constexpr int kWidest = 4;
template <int W>
constexpr int kTile = W == 4   ? 6
                      : W == 2 ? 8
                               : 16;
#else
constexpr int kWidest = 2;
template <int W>
constexpr int kTile = W == 2 ? 6 : 8;
#endif
constexpr int kKeys = 96;   // keys of a block: whole tiles of 6, 8 and 16
constexpr int kSlack = 16;  // rows and columns that a last tile may read past the end of a block

constexpr double kLog2e = 1.44269504088896340735992468100189214;

// Sums are double for double and float for the rest.
template <class S>
using Accumulator = std::conditional_t<std::is_same_v<S, double>, double, float>;

// A weight is 2^(factor (sign q) k - reference), the product rounded once where the machine fuses:
// scaled queries would cost an error that grows with the score. The factor is positive, so that the
// order of scores stays and -inf times it too; the sign of the scale, or its zero, goes to the
// queries.
template <class N>
struct Scale {
  N factor = 1, sign = 1;

  Scale() = default;
  SUFFUSE_INLINE explicit Scale(double scale)
      : factor(static_cast<N>(__builtin_fabs(scale) * kLog2e)), sign(scale < 0 ? N(-1) : N(1)) {
    if (factor == 0) factor = 1, sign = 0;
  }
};

template <class T>
SUFFUSE_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
SUFFUSE_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}

// sum[i][j] += sum over k of a[i row + k step] b[k ldb + vector j], for the vectors j >= J0
template <int J0, int M, int W, class V, class N>
SUFFUSE_INLINE void multiply(V (&sum)[M][W], const N* a, int64_t row, int64_t step, const N* b,
                             int64_t ldb, int64_t depth) {
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    V column[W];
#pragma GCC unroll 4
    for (int j = J0; j < W; ++j) column[j] = load<V>(b + j * V::N);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const V x(a[i * row]);
#pragma GCC unroll 4
      for (int j = J0; j < W; ++j) sum[i][j] = muladd(x, column[j], sum[i][j]);
    }
    a += step;
    b += ldb;
  }
}

template <int M, int W, class V>
SUFFUSE_INLINE void clear(V (&sum)[M][W]) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j) sum[i][j] = zero<V>();
}

// Tiles [key][W vectors] in memory, the vectors from J0 on.
template <int J0, int M, int W, class V, class N>
SUFFUSE_INLINE void store_tile(N* to, const V (&x)[M][W]) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = J0; j < W; ++j) store(to + (i * W + j) * V::N, x[i][j]);
}
template <int J0, int M, int W, class V, class N>
SUFFUSE_INLINE void load_tile(V (&x)[M][W], const N* from) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = J0; j < W; ++j) x[i][j] = load<V>(from + (i * W + j) * V::N);
}

// Calls fn with J0, the first of W vectors that takes part, as a compile-time constant.
template <int W, int J = 0, class Fn>
SUFFUSE_INLINE void from_vector(int64_t first, Fn&& fn) {
  if constexpr (J + 1 < W) {
    if (first > J) return from_vector<W, J + 1>(first, fn);
  }
  fn(std::integral_constant<int, J>{});
}

// Calls fn with the width of a panel (1, 2 or 4 vectors) as a compile-time constant.
template <class Fn>
SUFFUSE_INLINE void visit_width(int width, Fn&& fn) {
  if constexpr (kWidest == 4) {
    if (width == 4) return fn(std::integral_constant<int, 4>{});
  }
  if (width == 2) return fn(std::integral_constant<int, 2>{});
  fn(std::integral_constant<int, 1>{});
}

// What of a key block a panel sees. A key at place `key` of the block is seen by the lanes
// [offset + key, key - behind] of the panel.
struct Visible {
  int64_t begin, keys;     // places [begin, keys) are seen by some lane
  int64_t offset, behind;  // very negative where nothing is hidden

  // The first vector of N lanes that sees the key.
  SUFFUSE_INLINE int64_t first_vector(int64_t key, int lanes) const {
    return larger<int64_t>(0, offset + key) / lanes;
  }
  // Keys that vector j sees with at least one lane.
  SUFFUSE_INLINE int64_t keys_of(int64_t j, int lanes) const {
    return larger<int64_t>(0, smaller(keys, (j + 1) * lanes - offset));
  }
};

SUFFUSE_INLINE Visible visible(const AttentionSequence& s, int64_t first_query, int64_t queries,
                               int64_t first_key) {
  const int64_t place = first_query + s.shift - first_key;
  const int64_t offset = -s.right - place, behind = place - s.left;
  const int64_t keys = smaller(smaller<int64_t>(kKeys, s.S - first_key), queries - offset);
  return {larger<int64_t>(0, behind), keys, offset, behind};
}

// Calls fn(first key, keys) for the key blocks that the queries [begin, end) see, the last one
// first: with ALiBi the nearest keys then set the reference of the softmax. Blocks begin at the
// same keys for all queries, so that a row's sums do not depend on how the queries are cut.
template <class Fn>
SUFFUSE_INLINE void for_key_blocks(const AttentionSequence& s, int64_t begin, int64_t end,
                                   Fn&& fn) {
  const int64_t keys = s.end_key(end - 1), first = s.first_key(begin) / kKeys * kKeys;
  if (keys <= 0) return;
  for (int64_t key = (keys - 1) / kKeys * kKeys; key >= first; key -= kKeys)
    fn(key, smaller<int64_t>(kKeys, keys - key));
}

// Scores of the tile of keys from `key` on: hidden ones become -inf.
template <int J0, int M, int W, class V>
SUFFUSE_INLINE void mask(V (&score)[M][W], const Visible& seen, int64_t key) {
  const V hidden(-SoftmaxState<V>::kInf);
  const int64_t place = seen.offset + key, ahead = key - seen.behind, rows = seen.keys - key;
  if (ahead < W * V::N - 1) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = J0; j < W; ++j) {
        const int64_t lanes = larger<int64_t>(0, ahead + i + 1 - j * V::N);
        if (lanes < V::N) {
          score[i][j] = select(first<V>(static_cast<int>(lanes)), score[i][j], hidden);
        }
      }
  }
  if (place + M - 1 > J0 * V::N) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = J0; j < W; ++j) {
        const int64_t lanes = smaller<int64_t>(V::N, place + i - j * V::N);
        if (lanes > 0) score[i][j] = select(first<V>(static_cast<int>(lanes)), hidden, score[i][j]);
      }
  }
  if (rows < M) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      if (i >= rows)
#pragma GCC unroll 4
        for (int j = J0; j < W; ++j) score[i][j] = hidden;
  }
}

// sum += A^T B over the keys that each vector sees: all W vectors for the first keys, then fewer.
// A[key][..] has M columns from a; B[key][W vectors] from b.
template <int J, int M, int W, class V, class N>
SUFFUSE_INLINE void multiply_visible(V (&sum)[M][W], const N* a, int64_t lda, const N* b,
                                     const Visible& seen, int64_t begin) {
  const int64_t end = seen.keys_of(J, V::N);
  if (end > begin) {
    multiply<J>(sum, a + begin * lda, 1, lda, b + begin * W * V::N, W * V::N, end - begin);
    begin = end;
  }
  if constexpr (J + 1 < W) {
    if (begin < seen.keys) multiply_visible<J + 1>(sum, a, lda, b, seen, begin);
  }
}

// out[c][query] += sum over keys of a[key][c] b[key][query], columns c of [column, column + M)
template <int M, int W, class N>
SUFFUSE_INLINE void accumulate_columns(N* out, const N* a, int64_t lda, const N* b,
                                       const Visible& seen, int64_t column) {
  using V = Vec<N>;
  V sum[M][W];
  clear(sum);  // a fresh sum per key block: rounding grows with the blocks, not with the keys
  multiply_visible<0>(sum, a + column, lda, b, seen, seen.begin);
  N* const to = out + column * W * V::N;
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j) {
      N* const x = to + (i * W + j) * V::N;
      store(x, load<V>(x) + sum[i][j]);
    }
}
template <int W, class N>
SUFFUSE_INLINE void accumulate(N* out, const N* a, int64_t lda, const N* b, const Visible& seen,
                               int64_t columns) {
  constexpr int M = kTile<W>, half = M == 6 ? 4 : M / 2;
  int64_t c = 0;
  for (; c + half < columns; c += M) accumulate_columns<M, W>(out, a, lda, b, seen, c);
  if (c < columns) accumulate_columns<half, W>(out, a, lda, b, seen, c);
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
