// What comes between q k^T and the softmax beside the scale: softcap, ALiBi, bias or mask; and
// dropout of the weights. The kernels are compiled with and without it (kModified). In the fp32
// kernels whole tiles pass through memory here, in rolled loops.
#pragma once

#include "ops/attention/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

SUFFUSE_INLINE bool is_modified(const AttentionParams& p) {
  const AttentionScores& s = p.scores;
  return s.softcap > 0 || s.bias_kind != AttentionBias::none || s.alibi != nullptr || s.dropout > 0;
}

// Of one (sequence, head), scores in base 2; then of one panel and key block.
template <class N>
struct Modifiers {
  N factor, cap, cap_argument, slope;  // |scale|; softcap and |scale| / softcap, 0: none; ALiBi
  int64_t position;                    // of lane 0, counted from the block's first key
  N *bias, *keep;     // [key][lane], or bias [key]; null: none. keep: 0 or 1 / (1 - dropout)
  bool same_for_all;  // bias does not depend on the query
  bool only_bias;     // and it does, and there is nothing but it
  // What the next panel will read of the bias: fetched while this one is computed, a few rows with
  // each tile, since all at once would wait for the memory.
  const char* next;
  int64_t next_row, next_rows, next_bytes;

  template <int W>
  SUFFUSE_INLINE void prefetch(int64_t key) const {
    constexpr int64_t rows = (W * Vec<N>::N * kTile<W> + kKeys - 1) / kKeys, line = 64;
    const int64_t first = key / kTile<W> * rows, end = smaller(next_rows, first + rows);
    for (int64_t r = first; r < end; ++r)
      for (int64_t at = 0; at < next_bytes + line; at += line)
        __builtin_prefetch(next + r * next_row + at, 0, 2);
  }
};

template <class N>
SUFFUSE_INLINE Modifiers<N> modifiers(const AttentionParams& p, int64_t b, int64_t h,
                                      const Scale<N>& scale) {
  const AttentionScores& s = p.scores;
  Modifiers<N> m{};
  m.factor = scale.factor;
  m.same_for_all = s.bias_row == 0;
  if (s.softcap > 0) {
    m.cap = static_cast<N>(s.softcap * kLog2e);
    m.cap_argument = static_cast<N>(__builtin_fabs(s.scale) / s.softcap);
  }
  if (s.alibi != nullptr) {
    m.slope = static_cast<const N*>(s.alibi)[b * s.alibi_batch + h] * static_cast<N>(kLog2e);
  }
  const bool bias = s.bias_kind != AttentionBias::none;
  m.only_bias = bias && !m.same_for_all && s.softcap == 0 && s.alibi == nullptr;
  return m;
}

// The lanes' numbers 0, 1, ...
template <class V>
SUFFUSE_INLINE V lane_numbers() {
  using N = typename ElementOf<V>::type;
  static constexpr N numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<V>(numbers);
}

// Products x[i][j], of the key `key` + i and the vector of queries `first` + j, become scores in
// base 2 but for their bias, plus offset[j]. cap(x, offset, i, j) does so for the softcap.
template <int M, int W, class N, class Cap>
SUFFUSE_INLINE void modify(Vec<N> (&x)[M][W], const Vec<N> (&offset)[W], const Modifiers<N>& m,
                           int64_t key, int first, Cap cap) {
  using V = Vec<N>;
  constexpr int L = V::N;
  const int64_t place = m.position + first * L - key;  // of lane 0, from the first of the keys
  // Where all keys are on one side, the distance is a sum, and but for i belongs to the offset.
  const bool before = place >= M - 1, after = place + W * L - 1 <= 0;
  const N slope = before ? m.slope : -m.slope;
  V from[W];
#pragma GCC unroll 4
  for (int j = 0; j < W; ++j) {
    from[j] = offset[j];
    if (m.slope != 0 && (before || after)) {
      from[j] = muladd(lane_numbers<V>() + V(static_cast<N>(place + j * L)), V(-slope), from[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j)
      x[i][j] = m.cap > 0 ? cap(x[i][j], from[j], i, j) : muladd(x[i][j], V(m.factor), from[j]);
  if (m.slope == 0) return;
  const V lanes = lane_numbers<V>() + V(static_cast<N>(place));
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j) {
      if (before || after) {
        if (i > 0) x[i][j] += V(slope * static_cast<N>(i));
      } else {
        x[i][j] = muladd(abs(lanes + V(static_cast<N>(j * L - i))), V(-m.slope), x[i][j]);
      }
    }
}

// The same with the bias for a tile in memory (keys [key, key + M), the vectors from `first` on).
// `derivative` gets the softcap's, where there is one.
template <int W, class N>
__attribute__((noinline)) void modify_tile(const Modifiers<N>& m, N* tile, N* derivative,
                                           int64_t key, int first) {
  using V = Vec<N>;
  constexpr int M = kTile<W>, L = V::N;
  const V offset[1] = {zero<V>()};
  for (int i = 0; i < M; ++i)
    for (int j = first; j < W; ++j) {
      const int64_t at = (i * W + j) * L;
      V x[1][1] = {{load<V>(tile + at)}};
      modify(x, offset, m, key + i, j, [&](V product, V from, int, int) {
        const V t = tanh_fast(product * V(m.cap_argument));
        if (derivative != nullptr) store(derivative + at, V(1) - t * t);
        return muladd(t, V(m.cap), from);
      });
      if (m.bias != nullptr) {
        x[0][0] += m.same_for_all ? V(m.bias[key + i]) : load<V>(m.bias + key * W * L + at);
      }
      store(tile + at, x[0][0]);
    }
}

// Products become scores: in the registers where there is a bias of each query's own and nothing
// else, else by way of `tile`.
template <int J0, int M, int W, class N>
SUFFUSE_INLINE void to_scores(Vec<N> (&x)[M][W], const Modifiers<N>& m, N* tile, N* derivative,
                              int64_t key) {
  using V = Vec<N>;
  m.template prefetch<W>(key);
  if (m.only_bias) {
    const N* const bias = m.bias + key * W * V::N;
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = J0; j < W; ++j)
        x[i][j] = muladd(x[i][j], V(m.factor), load<V>(bias + (i * W + j) * V::N));
    return;
  }
  store_tile<J0>(tile, x);
  modify_tile<W, N>(m, tile, derivative, key, J0);
  load_tile<J0>(x, tile);
}

// x *= y over whole vectors.
template <class N>
__attribute__((noinline)) void multiply_by(N* x, const N* y, int64_t count) {
  for (int64_t i = 0; i < count; i += Vec<N>::N)
    store(x + i, load<Vec<N>>(x + i) * load<Vec<N>>(y + i));
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
