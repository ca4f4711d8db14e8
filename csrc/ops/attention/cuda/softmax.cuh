// The online softmax of attention, in the registers of a warp (Milakov and Gimelshein 2018; Dao
// 2023, algorithm 1), and what comes of it.
#pragma once

#include "cuda/shuffle.cuh"
#include "ops/attention/cuda/tile.cuh"

namespace suffuse {

// Over the four lanes that share a row of a fragment.
SUFFUSE_DEVICE float row_max(float x) {
  x = fmaxf(x, shuffle_xor(x, 1));
  return fmaxf(x, shuffle_xor(x, 2));
}
SUFFUSE_DEVICE float row_sum(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}

// The state of rows g and g + 8 of a fragment of 16. Scores are in base 2 once multiplied by a
// factor > 0.
struct RowSoftmax {
  float top[2];  // the largest score so far, the same in the lanes of a row; -inf before the first
  float sum[2];  // of 2^(factor (score - top)), of the lane's own columns

  SUFFUSE_DEVICE void clear() {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      top[half] = -__int_as_float(0x7f800000);
      sum[half] = 0;
    }
  }

  // Makes scores of 8 kCount keys weights 2^(factor (score - top)); keep: the factors for what was
  // summed with the earlier top. A NaN is kept out of top and reaches the sum.
  template <int kCount>
  SUFFUSE_DEVICE void push(float (&scores)[kCount][4], float factor, float (&keep)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float next = scores[0][2 * half];
#pragma unroll
      for (int n = 0; n < kCount; n++) {
        next = fmaxf(next, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      next = fmaxf(row_max(next), top[half]);
      // Without a score above -inf all weights are 2^-inf.
      const float offset = next == -__int_as_float(0x7f800000) ? 0.f : next * factor;
      keep[half] = gpu::exp2_approx(fmaf(top[half], factor, -offset));
      top[half] = next;
      float added = 0;
#pragma unroll
      for (int n = 0; n < kCount; n++) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) {
          scores[n][e] = gpu::exp2_approx(fmaf(scores[n][e], factor, -offset));
          added += scores[n][e];
        }
      }
      sum[half] = fmaf(sum[half], keep[half], added);
    }
  }

  // A logit without a value; base 2, factor 1. Before the first push.
  SUFFUSE_DEVICE void push_sink(float logit) {
    const float one = logit - logit + 1;  // NaN where the logit is no number
#pragma unroll
    for (int half = 0; half < 2; half++) {
      top[half] = logit;
      sum[half] = logit == -__int_as_float(0x7f800000) || gpu::lane() % 4 != 0 ? 0.f : one;
    }
  }

  // The sums of whole rows, after the last push.
  SUFFUSE_DEVICE void finish() {
#pragma unroll
    for (int half = 0; half < 2; half++) sum[half] = row_sum(sum[half]);
  }
  SUFFUSE_DEVICE float inverse(int half) const { return sum[half] == 0 ? 0.f : 1 / sum[half]; }
  // Natural log of the sum of exponentials; -inf where there was nothing.
  SUFFUSE_DEVICE float lse(int half, float factor) const {
    constexpr float kLn2 = 0.6931471805599453f;
    return sum[half] == 0 ? -__int_as_float(0x7f800000)
                          : fmaf(top[half] * factor, kLn2, logf(sum[half]));
  }
};

// sums += the product of a step of the queries' columns, from k on, with 8 kCount keys.
template <class S, bool kTf32, int kTilesM, int kCount, class Tile>
SUFFUSE_DEVICE void multiply_keys(float (&sums)[kTilesM][kCount][4],
                                  const uint32_t (&queries)[kTilesM][4], const Tile& keys, int key,
                                  int k) {
#pragma unroll
  for (int n = 0; n < kCount; n += 2) {
    uint32_t b[2][2];
    load_keys(b, keys, k, key + 8 * n);
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
      multiply_raw<S, kTf32>(sums[m][n], queries[m], b[0]);
      multiply_raw<S, kTf32>(sums[m][n + 1], queries[m], b[1]);
    }
  }
}

// out += weights, which are operands by weights_of, times the values from `key` on.
template <class S, bool kTf32, int kTilesM, int kSteps, int kOut, class Tile>
SUFFUSE_DEVICE void multiply_values(float (&out)[kTilesM][kOut][4],
                                    const uint32_t (&weights)[kTilesM][kSteps][4],
                                    const Tile& values, int key) {
#pragma unroll
  for (int k = 0; k < kSteps; k++) {
#pragma unroll
    for (int n = 0; n < kOut; n += 2) {
      uint32_t b[2][2];
      load_values(b, values, key + k * kMmaDepth<S>, 8 * n);
#pragma unroll
      for (int m = 0; m < kTilesM; m++) {
        multiply_raw<S, kTf32>(out[m][n], weights[m][k], b[0]);
        multiply_raw<S, kTf32>(out[m][n + 1], weights[m][k], b[1]);
      }
    }
  }
}

}  // namespace suffuse
