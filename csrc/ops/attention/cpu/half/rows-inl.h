// Panels of 32 queries and groups of 32 keys: where their rows are, and which keys a query sees.
#pragma once

#include <cstdint>

#include "math/online_softmax.h"
#include "ops/attention/cpu/half/pack-inl.h"
#include "ops/attention/sequence.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

using V = Vec<float>;

constexpr int kPanel = 32, kGroup = 32;
constexpr int kGroupFloats = kGroup * kPanel;     // scores of a panel with a group: 2 x 2 tiles
constexpr int kGroupWords = kGroup * kPanel / 2;  // the same in bfloat16

SUFFUSE_INLINE Rows32 key_rows(const AttentionParams& p, const AttentionTensor& t,
                               const AttentionSequence& s, int64_t head, int64_t key) {
  Rows32 rows;
  rows.dtype = p.dtype;
  for (int64_t r = 0; r < kGroup; ++r) {
    rows.row[r] = nullptr;
    if (key + r < s.S) {
      rows.row[r] =
          static_cast<const bfloat16*>(t.data) + attention_key(p, t, s, key + r) + head * t.head;
    }
  }
  return rows;
}

SUFFUSE_INLINE Rows32 query_rows(const AttentionParams& p, const AttentionTensor& t,
                                 const AttentionSequence& s, int64_t head, int64_t query) {
  Rows32 rows;
  rows.dtype = p.dtype;
  for (int64_t r = 0; r < kPanel; ++r) {
    rows.row[r] = nullptr;
    if (query + r < s.T) {
      rows.row[r] =
          static_cast<const bfloat16*>(t.data) + attention_query(t, s, query + r) + head * t.head;
    }
  }
  return rows;
}

// The largest norm of the rows.
__attribute__((noinline)) inline float largest_norm(const Rows32& rows, int64_t columns) {
  const bool half = rows.dtype == DType::f16;
  V most = zero<V>();
  for (int r = 0; r < 32; ++r) {
    V sum = zero<V>();
    for (int64_t c = 0; c < columns; c += 32) {
      const Words x = rows.words(r, c, columns);
      const V low = half ? low_half_f16(x) : low_half(x),
              high = half ? high_half_f16(x) : high_half(x);
      sum = muladd(low, low, sum);
      sum = muladd(high, high, sum);
    }
    most = max(most, V(reduce_add(sum)));
  }
  return __builtin_sqrtf(reduce_max(most));
}

// Scores of keys that a query does not see become -inf. Tiles (key, query) of the group that begins
// at `key` and the panel that begins at `query`.
__attribute__((noinline)) inline void hide(float* scores, const AttentionSequence& s, int64_t key,
                                           int64_t query) {
  const V hidden(-SoftmaxState<V>::kInf);
  const auto lanes = [](int64_t n) {
    return first<V>(static_cast<int>(larger<int64_t>(0, smaller<int64_t>(V::N, n))));
  };
  for (int64_t i = 0; i < kGroup; ++i)
    for (int64_t j = 0; j < 2; ++j) {
      // Of these lanes, the key is seen by those from first_lane on and before end_lane.
      const int64_t place = query + j * V::N + s.shift;
      const int64_t first_lane = key + i < s.S ? key + i - s.right - place : V::N;
      const int64_t end_lane = key + i + s.left + 1 - place;
      float* const x = scores + (i / 16 * 2 + j) * kTileWords + i % 16 * V::N;
      store(x, select(lanes(first_lane) | ~lanes(end_lane), hidden, load<V>(x)));
    }
}
// Whether there is something to hide.
SUFFUSE_INLINE bool is_cut(const AttentionSequence& s, int64_t key, int64_t query) {
  return key + kGroup > s.end_key(query) || key < s.first_key(query + kPanel - 1);
}

// The groups [begin, end) that some query of the panel sees.
struct Groups {
  int64_t begin, end;
};
SUFFUSE_INLINE Groups seen_groups(const AttentionSequence& s, int64_t query) {
  const int64_t last = smaller(query + kPanel, s.T) - 1;
  return {s.first_key(query) / kGroup, tiles_of(s.end_key(last), kGroup)};
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
