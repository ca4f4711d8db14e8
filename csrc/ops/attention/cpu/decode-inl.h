// The inner loops of attention for few queries: head dims lie on the vector lanes.
//
// R rows (query heads of one kv head, and queries) share every key and value that is read. The
// scores of R rows and K keys are R K = one vector of dot products; lane r K + i is row r, key i.
#pragma once

#include <cstdint>

#include "math/online_softmax.h"
#include "ops/attention/sequence.h"
#include "simd/math.h"
#include "simd/sum_lanes.h"
#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

constexpr int kDecodeBlock = 64;  // keys whose scores are held at a time
constexpr double kDecodeLog2e = 1.44269504088896340735992468100189214;
constexpr int64_t kCacheLine = 64;

template <class N>
struct DecodeScores {
  N scale;  // to scores in base 2, or to tanh's argument
  N cap;    // softcap in base 2, or 0
  bool alibi;
};

// R rows of one kv head.
template <class N, int R>
struct DecodeRows {
  N *q, *out;        // [R][padded D], [R][padded Dv]: O before its division
  N* weights;        // [kDecodeBlock / K groups][R][K keys]: scores, then weights
  N *slope, *place;  // [lane]: in base 2; position of the row less the lane's key in its group
  N top[R], sum[R];
  int64_t first[R], end[R];  // keys that the row sees
};

// acc[r K + i] = q_r k_i over vectors of D.
template <int R, class N, class S>
SUFFUSE_INLINE Vec<N> decode_products(const N* q, int64_t ldq, const S* const* keys, int64_t head,
                                      int64_t D) {
  using V = Vec<N>;
  constexpr int L = V::N, K = L / R;
  V acc[L];
#pragma GCC unroll 16
  for (int a = 0; a < L; ++a) acc[a] = zero<V>();
  const auto step = [&](int64_t d, auto loaded) {
    V row[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) row[r] = load<V>(q + r * ldq + d);
#pragma GCC unroll 16
    for (int i = 0; i < K; ++i) {
      const V x = loaded(keys[i] + head + d);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r * K + i] = muladd(row[r], x, acc[r * K + i]);
    }
  };
  int64_t d = 0;
  for (; d + L <= D; d += L) step(d, [](const S* p) { return load<V>(p); });
  if (d < D) {
    const int rest = static_cast<int>(D - d);
    step(d, [rest](const S* p) { return load<V>(p, rest); });
  }
  return sum_lanes(acc);
}

// out[r][columns of C vectors from d on] = keep[r] out + sum over keys of weights[r][key] v[key].
template <int C, int R, class N, class S>
SUFFUSE_INLINE void decode_columns(const DecodeRows<N, R>& rows, const N (&keep)[R],
                                   const S* const* values, int64_t head, int64_t keys, int64_t d,
                                   int64_t ld, int rest) {
  using V = Vec<N>;
  constexpr int L = V::N, K = L / R;
  V sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = load<V>(rows.out + r * ld + d + c * L) * V(keep[r]);
  for (int64_t key = 0; key < keys; ++key) {
    const S* const v = values[key] + head + d;
    const N* const w = rows.weights + key / K * L + key % K;
    V x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = rest == 0 ? load<V>(v + c * L) : load<V>(v + c * L, rest);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = muladd(V(w[r * K]), x[c], sum[r][c]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(rows.out + r * ld + d + c * L, sum[r][c]);
}

template <int R, class N, class S>
SUFFUSE_INLINE void decode_values(const DecodeRows<N, R>& rows, const N (&keep)[R],
                                  const S* const* values, int64_t head, int64_t keys, int64_t Dv,
                                  int64_t ld) {
  constexpr int L = Vec<N>::N, C = L == 16 || R == 1 ? 4 : 2;
  int64_t d = 0;
  for (; d + C * L <= Dv; d += C * L)
    decode_columns<C, R>(rows, keep, values, head, keys, d, ld, 0);
  for (; d + L <= Dv; d += L) decode_columns<1, R>(rows, keep, values, head, keys, d, ld, 0);
  if (d < Dv) decode_columns<1, R>(rows, keep, values, head, keys, d, ld, static_cast<int>(Dv - d));
}

// Scores in base 2 from products: softcap, then ALiBi.
template <int R, class N>
SUFFUSE_INLINE Vec<N> decode_modify(const DecodeRows<N, R>& rows, const DecodeScores<N>& s,
                                    Vec<N> x, int64_t key) {
  using V = Vec<N>;
  x = x * V(s.scale);
  if (s.cap != 0) x = tanh(x) * V(s.cap);
  if (s.alibi) {
    const V distance = abs(load<V>(rows.place) - V(static_cast<N>(key)));
    x = x - load<V>(rows.slope) * distance;
  }
  return x;
}

// Scores of the keys [key, key + count) of a group that some row does not see become -inf.
template <int R, class N>
SUFFUSE_INLINE void decode_hide(const DecodeRows<N, R>& rows, N* scores, int64_t key,
                                int64_t count) {
  constexpr int K = Vec<N>::N / R;
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < K; ++i)
      if (i >= count || key + i < rows.first[r] || key + i >= rows.end[r])
        scores[r * K + i] = -SoftmaxState<N>::kInf;
}

// Turns the scores of a block into weights, raises the tops; keep: the factors for what was summed.
template <int R, class N>
SUFFUSE_INLINE void decode_softmax(DecodeRows<N, R>& rows, int64_t keys, N (&keep)[R]) {
  using V = Vec<N>;
  constexpr int L = V::N, K = L / R;
  V largest(SoftmaxState<N>::kLowest);
  for (int64_t g = 0; g < keys; g += K) largest = max(load<V>(rows.weights + g / K * L), largest);
  N lanes[L], tops[L];
  store(lanes, largest);
  for (int r = 0; r < R; ++r) {
    N top = rows.top[r];
    for (int i = 0; i < K; ++i) top = lanes[r * K + i] > top ? lanes[r * K + i] : top;
    keep[r] = reduce_max(exp2_fast(V(rows.top[r] - top)));
    rows.top[r] = top;
    for (int i = 0; i < K; ++i) tops[r * K + i] = top;
  }
  const V top = load<V>(tops);
  V sum = zero<V>();
  for (int64_t g = 0; g < keys; g += K) {
    const V weight = exp2_fast(load<V>(rows.weights + g / K * L) - top);
    sum += weight;
    store(rows.weights + g / K * L, weight);
  }
  store(lanes, sum);
  for (int r = 0; r < R; ++r) {
    N total = lanes[r * K];
    for (int i = 1; i < K; ++i) total += lanes[r * K + i];
    rows.sum[r] = rows.sum[r] * keep[r] + total;
  }
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
