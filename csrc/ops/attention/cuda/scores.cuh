// From products q k^T in the fragments of tensor cores to scores: softcap, ALiBi, bias, what a
// query does not see, and dropout. Forward and backward share it.
//
// A fragment is D of csrc/cuda/words/mma.cuh: element e of lane 4 g + t is at row g + 8 (e >> 1)
// and column 2 t + (e & 1). Its rows are queries and its columns keys, or the other way round
// (kKeysAreRows); both count within the sequence. Scores are in base 2: a weight is
// exp2(score - lse log2 e).
#pragma once

#include "cuda/shuffle.cuh"
#include "ops/attention/dropout.h"
#include "ops/attention/sequence.h"

namespace suffuse {

constexpr float kAttentionLog2e = 1.4426950408889634f;

// Of one sequence and query head. Positions are below 2^30.
struct ScoreTerms {
  float scale;         // of q k^T: to a score, or with a softcap to the argument of scaled_tanh
  float cap;           // 0: none
  float slope;         // ALiBi
  float kept;          // factor of the weights that dropout leaves
  uint32_t threshold;  // of dropout; 0: none
  uint32_t pair;       // b H + h
  int64_t seed;
  const void* bias;  // of this batch entry and head, or null
  int64_t bias_row, bias_key;
  AttentionBias bias_kind;
  int queries, keys, shift, left, right;
};

struct Score {
  float value;
  float derivative;  // by scale q k^T
};

template <class N>
SUFFUSE_DEVICE const N* advance(const void* data, int64_t elements) {
  return static_cast<const N*>(data) + elements;
}

SUFFUSE_DEVICE int attention_limit(int64_t distance) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return static_cast<int>(distance < kMost ? distance : kMost);
}

template <bool kGeneral, class S>
SUFFUSE_DEVICE ScoreTerms score_terms(const AttentionParams& p, const AttentionSequence& s, int h) {
  const AttentionScores& a = p.scores;
  ScoreTerms t{};
  t.scale = static_cast<float>(a.scale) * kAttentionLog2e;
  t.queries = static_cast<int>(s.T);
  t.keys = static_cast<int>(s.S);
  t.shift = static_cast<int>(s.shift);
  t.left = attention_limit(s.left);
  t.right = attention_limit(s.right);
  if constexpr (kGeneral) {
    if (a.softcap > 0) {
      t.cap = static_cast<float>(a.softcap) * kAttentionLog2e;
      t.scale *= 2 / static_cast<float>(a.softcap);
    }
    if (a.alibi != nullptr) {
      t.slope = advance<float>(a.alibi, s.b * a.alibi_batch)[h] * kAttentionLog2e;
    }
    if (a.bias_kind != AttentionBias::none) {
      const int64_t at = s.b * a.bias_batch + h * a.bias_head;
      const int64_t bytes = a.bias_kind == AttentionBias::mask   ? 1
                            : a.bias_kind == AttentionBias::same ? sizeof(S)
                                                                 : sizeof(float);
      t.bias = static_cast<const char*>(a.bias) + at * bytes;
    }
    t.bias_row = a.bias_row;
    t.bias_key = a.bias_key;
    t.bias_kind = a.bias_kind;
    if (a.dropout > 0) {
      t.threshold = attention_dropout_threshold(a.dropout);
      t.kept = 1 / (1 - static_cast<float>(a.dropout));
      t.pair = static_cast<uint32_t>(s.b * p.H + h);
      t.seed = *a.seed;
    }
  }
  return t;
}

// Whether the query sees the key; bias and mask apart.
SUFFUSE_DEVICE bool is_seen(const ScoreTerms& t, int query, int key) {
  const int distance = key - query - t.shift;
  return key < t.keys && query < t.queries && -t.left <= distance && distance <= t.right;
}

// Whether all queries [query, query + queries) see all keys [key, key + keys).
SUFFUSE_DEVICE bool all_seen(const ScoreTerms& t, int query, int queries, int key, int keys) {
  return is_seen(t, query, key + keys - 1) && is_seen(t, query + queries - 1, key);
}

// tanh(x / (2 log2 e)) = 1 - 2 / (2^x + 1): absolute error below 2^-21, and a score needs no
// relative one.
SUFFUSE_DEVICE float scaled_tanh(float x) {
  return 1 - 2 * gpu::reciprocal_approx(gpu::exp2_approx(x) + 1);
}

// The bias in base 2; -inf where a mask hides the key.
template <class S>
SUFFUSE_DEVICE float bias_of(const ScoreTerms& t, int query, int key) {
  const int64_t at = query * t.bias_row + key * t.bias_key;
  if (t.bias_kind == AttentionBias::mask) {
    return *advance<uint8_t>(t.bias, at) != 0 ? 0.f : -__int_as_float(0x7f800000);
  }
  const float value = t.bias_kind == AttentionBias::same ? gpu::to_float(*advance<S>(t.bias, at))
                                                         : *advance<float>(t.bias, at);
  return value * kAttentionLog2e;
}

// The score of a query and a key of the sequence; those that is_seen hides are the caller's to
// hide, and where it hides, query and key need not exist.
template <bool kGeneral, class S>
SUFFUSE_DEVICE Score score_of(const ScoreTerms& t, float product, int query, int key) {
  Score score{product * t.scale, 1.f};
  if constexpr (kGeneral) {
    if (t.cap != 0.f) {
      const float tanh = scaled_tanh(score.value);
      score = {t.cap * tanh, 1 - tanh * tanh};
    }
    const int distance = query + t.shift - key;
    score.value -= t.slope * static_cast<float>(distance < 0 ? -distance : distance);
    if (t.bias != nullptr && query < t.queries && key < t.keys) {
      score.value += bias_of<S>(t, query, key);
    }
  }
  return score;
}

// What dropout multiplies the weights of a fragment with: 0 or 1 / (1 - dropout). The fragment
// starts at (row, column), both multiples of 8. All 32 lanes together; one Philox block a lane.
template <bool kKeysAreRows>
SUFFUSE_DEVICE void dropout_factors(float (&factor)[4], const ScoreTerms& terms, int row,
                                    int column) {
  const int lane = gpu::lane(), g = lane >> 2, t = lane & 3;
  uint32_t word[4];
  if constexpr (kKeysAreRows) {
    // Lane m of the four that share keys 4 n .. 4 n + 3 and queries makes the words of element m of
    // all four, and then they transpose.
    const int m = g & 3, query = column + 2 * t + (m & 1);
    const int quad = (row >> 2) + (g >> 2) + (m & 2);
    const PhiloxBlock made = attention_dropout_words(terms.seed, terms.pair, query, quad);
#pragma unroll
    for (int i = 0; i < 4; i++) word[i] = made.c[i];
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
      const bool high = (m & bit) != 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (i & bit) continue;
        const uint32_t other = shuffle_xor(high ? word[i] : word[i | bit], 4 * bit);
        if (high) {
          word[i] = other;
        } else {
          word[i | bit] = other;
        }
      }
    }
  } else {
    // Two lanes share keys 4 n .. 4 n + 3 of rows g and g + 8: each makes one row's words.
    const bool odd = (t & 1) != 0;
    const int query = row + g + (odd ? 8 : 0), quad = (column >> 2) + (t >> 1);
    const PhiloxBlock made = attention_dropout_words(terms.seed, terms.pair, query, quad);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint32_t other = shuffle_xor(odd ? made.c[i] : made.c[i + 2], 1);
      word[i] = odd ? other : made.c[i];
      word[i + 2] = odd ? made.c[i + 2] : other;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) factor[i] = word[i] < terms.threshold ? 0.f : terms.kept;
}

}  // namespace suffuse
