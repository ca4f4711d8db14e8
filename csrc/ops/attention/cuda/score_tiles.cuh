// The scores of 16 queries and some keys in the fragments of a warp: [n] those of the keys key + 8
// n to key + 8 n + 7.
#pragma once

#include "ops/attention/cuda/scores.cuh"

namespace suffuse {

// Where element e of the lane's fragment is that starts at `row`, and of the n-th from `column` on.
SUFFUSE_DEVICE int fragment_row(int row, int e) {
  return row + static_cast<int>(gpu::lane() >> 2) + (e >> 1) * 8;
}
SUFFUSE_DEVICE int fragment_column(int column, int n, int e) {
  return column + 8 * n + static_cast<int>(gpu::lane() & 3) * 2 + (e & 1);
}

// Products of the queries from `query` on become scores.
template <class S, int kCount>
SUFFUSE_DEVICE void add_terms(float (&scores)[kCount][4], const ScoreTerms& terms, int query,
                              int key) {
#pragma unroll
  for (int n = 0; n < kCount; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      scores[n][e] =
          score_of<true, S>(terms, scores[n][e], fragment_row(query, e), fragment_column(key, n, e))
              .value;
    }
  }
}

// Scores of keys that are not seen become -inf: the first row sees `count` keys from `begin` on,
// each other from one further on, and none from `end` on.
template <int kCount>
SUFFUSE_DEVICE void hide_keys(float (&scores)[kCount][4], int begin, int count, int end, int key) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int first = fragment_row(begin, 2 * half);
    const uint32_t seen = ::max(::min(count, end - first), 0);
    const uint32_t at = fragment_column(key, 0, 0) - first;
#pragma unroll
    for (int n = 0; n < kCount; n++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        if (at + 8 * n + e >= seen) scores[n][2 * half + e] = -__int_as_float(0x7f800000);
      }
    }
  }
}

// Weights that dropout takes become 0, the others are scaled.
template <int kCount>
SUFFUSE_DEVICE void drop_weights(float (&weights)[kCount][4], const ScoreTerms& all, int query,
                                 int key) {
  // Or else the keys of all rounds of Philox would be kept in registers.
  ScoreTerms terms = all;
  terms.seed = static_cast<int64_t>(gpu::opaque(static_cast<int>(all.seed >> 32))) << 32 |
               static_cast<uint32_t>(gpu::opaque(static_cast<int>(all.seed)));
#pragma unroll
  for (int n = 0; n < kCount; n++) {
    float factor[4];
    dropout_factors<false>(factor, terms, query, key + 8 * n);
#pragma unroll
    for (int e = 0; e < 4; e++) weights[n][e] *= factor[e];
  }
}

}  // namespace suffuse
