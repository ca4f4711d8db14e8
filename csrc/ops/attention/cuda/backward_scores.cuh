// From products to weights and gradients of scores, in the fragments of tensor cores (Dao et al.
// 2022, equation 4).
#pragma once

#include "ops/attention/cuda/scores.cuh"

namespace suffuse {

// s = q k^T becomes the weights P, or what dropout makes of them; dp = dO v^T becomes the gradient
// of scale q k^T. The fragment starts at (row, column) of the sequence. lse (base 2) and delta are
// those of the lane's two queries: g and g + 8, or 2 t and 2 t + 1 where keys are rows. kMasked:
// some of the keys may not be seen. with_score takes the gradients of the scores themselves, which
// are the bias's: with_score(e, query, key, value).
template <class S, bool kKeysAreRows, bool kGeneral, bool kMasked, class F>
SUFFUSE_DEVICE void differentiate_scores(float (&s)[4], float (&dp)[4], const ScoreTerms& terms,
                                         int row, int column, const float (&lse)[2],
                                         const float (&delta)[2], F with_score) {
  const int lane = gpu::lane();
  float kept[4] = {1.f, 1.f, 1.f, 1.f};
  if constexpr (kGeneral) {
    if (terms.threshold != 0) dropout_factors<kKeysAreRows>(kept, terms, row, column);
  }
#pragma unroll
  for (int e = 0; e < 4; e++) {
    const int r = row + (lane >> 2) + (e >> 1) * 8, c = column + (lane & 3) * 2 + (e & 1);
    const int query = kKeysAreRows ? c : r, key = kKeysAreRows ? r : c;
    const int i = kKeysAreRows ? e & 1 : e >> 1;
    float weight, derivative = 1.f;
    if constexpr (kGeneral) {
      const Score score = score_of<kGeneral, S>(terms, s[e], query, key);
      weight = gpu::exp2_approx(score.value - lse[i]);
      derivative = score.derivative;
    } else {
      weight = gpu::exp2_approx(fmaf(s[e], terms.scale, -lse[i]));
    }
    float gradient = weight * (dp[e] * kept[e] - delta[i]);
    if (kMasked && !is_seen(terms, query, key)) weight = gradient = 0.f;
    with_score(e, query, key, gradient);
    s[e] = weight * kept[e];
    dp[e] = gradient * derivative;
  }
}

}  // namespace suffuse
