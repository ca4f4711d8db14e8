// The softmax of the forward: weights from scores, and the reference they are relative to.
#pragma once

#include "ops/attention/cpu/half/modify-inl.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

constexpr int kGroups = 4;  // of a job
constexpr float kLargestSum = 0x1p64f;

struct Panel {
  uint32_t* q;  // tiles [parts][D / 32][2] of B: Q^T
  float* out;   // tiles [Dv / 16][2] of sums: O^T before its division
  float *top, *sum;
  int64_t first;  // query
  bool unset;     // whether some top is still to be found
  float norm;     // the largest of a query
};

// The groups [begin, end) of keys of one block, which a panel sees.
struct Job {
  Panel* panel = nullptr;       // null: none
  int64_t begin = 0, end = 0;   // in groups
  uint32_t* weights = nullptr;  // tiles [kGroups][parts][2] of B: P^T
  int64_t scores = 0;           // which of the two has the scores of group `begin`
};

struct Work {
  Panel* panels;
  int64_t count;
  AttentionSequence seen;
  const AttentionParams* p;
  int64_t head, group_head;
  float* scores[2];      // of one group and the next, tiles [2][2] of sums: S^T
  uint32_t* weights[2];  // of this job and of the one before
  uint32_t *k, *v;       // by groups: tiles [2][parts][D / 32], [parts][Dv / 16] of A: K, V^T
  int64_t packed, packed_end, packed_b, packed_head;  // what is packed: groups [packed, packed_end)
  int64_t most;                                       // how many are packed at a time
  int64_t parts, k_depth, v_rows;                     // k_depth counts every part
  Scale<float> scale;
  float* key_norms;             // of the packed groups, the largest of a key; null without softcap
  GroupModifiers modifiers[2];  // of one group and the next
};

SUFFUSE_INLINE float* scores_of(const Work& w, const Job& job, int64_t group) {
  return w.scores[(job.scores + group - job.begin) % 2];
}

SUFFUSE_INLINE const GroupModifiers& modifiers_of(const Work& w, const Job& job, int64_t group) {
  return w.modifiers[(job.scores + group - job.begin) % 2];
}
// Row by row what the next panel will read, so that the processor's own prefetching helps; where
// that is too much to keep, or not all of it is needed, the same rows further on.
SUFFUSE_INLINE Ahead ahead_of(const Work& w, int64_t group) {
  constexpr int64_t kMost = 1 << 16;  // bytes of the bias of a panel
  const AttentionScores& a = w.p->scores;
  const AttentionSequence& s = w.seen;
  const int64_t size = a.bias_kind == AttentionBias::mask   ? 1
                       : a.bias_kind == AttentionBias::same ? 2
                                                            : 4;
  if (kPanel * s.S * size > kMost || s.left < s.S || s.right < s.S) {
    return {8 * kGroup, a.bias_row};
  }
  return {kPanel * a.bias_row + group * (kPanel - 1) * kGroup, kGroup};
}
SUFFUSE_INLINE void pack_modifiers_of(Work& w, const Job& job, int64_t group) {
  GroupModifiers& g = w.modifiers[(job.scores + group - job.begin) % 2];
  const float largest =
      w.key_norms == nullptr ? 0.f : job.panel->norm * w.key_norms[group - w.packed];
  pack_group(g, *w.p, w.seen, w.head, job.panel->first, group * kGroup, largest,
             ahead_of(w, group));
}

// The weights of a group, some of them at every step of the products that run behind.
template <bool kModified>
class Softmax {
 public:
  SUFFUSE_INLINE Softmax(const Work& w, const Job& job, int64_t group, int64_t products)
      : from_(scores_of(w, job, group)),
        to_(job.weights + (group - job.begin) * w.parts * kGroupWords),
        panel_(*job.panel),
        modifiers_(modifiers_of(w, job, group)),
        factor_(w.scale.factor),
        products_(products),
        split_(w.parts > 1) {
    for (int j = 0; j < 2; ++j) {
      minus_top_[j] = -load<V>(panel_.top + j * V::N);
      sum_[j] = load<V>(panel_.sum + j * V::N);
    }
  }
  SUFFUSE_INLINE void step() {
    credit_ += kParts;
    if (credit_ < products_) return;
    credit_ -= products_;
    next_part();
  }
  SUFFUSE_INLINE void finish() {
    while (next_ < kParts) next_part();
    for (int j = 0; j < 2; ++j) store(panel_.sum + j * V::N, sum_[j]);
  }

 private:
  static constexpr int kKeys = 4, kParts = kGroup / kKeys;

  // Modified it is too long to stand behind every product.
  SUFFUSE_INLINE void next_part() {
    if constexpr (kModified) {
      long_part();
    } else {
      part();
    }
  }
  __attribute__((noinline)) void long_part() { part(); }

  SUFFUSE_INLINE void part() {
    const int64_t key = next_++ * kKeys;
    const float* const from = from_ + place_of(key);
    uint32_t* const to = to_ + key / 2 * V::N;
    V x[kKeys][2];
    if constexpr (kModified) {
      load_scores(x, from);
      modifiers_.fetch_ahead(key, key + kKeys);
      modifiers_.modify(x, minus_top_, key, [](int, int, V) {});
    }
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
#pragma GCC unroll 4
      for (int i = 0; i < kKeys; i += 2) {
        if constexpr (!kModified) {
          const float* const at = from + j * kTileWords + i * V::N;
          x[i][j] = muladd(load<V>(at), factor_, minus_top_[j]);
          x[i + 1][j] = muladd(load<V>(at + V::N), factor_, minus_top_[j]);
        }
        V a = exp2_near(x[i][j]), b = exp2_near(x[i + 1][j]);
        sum_[j] += a;
        sum_[j] += b;
        if constexpr (kModified) drop(a, b, key + i, j);
        store_parts(to + j * kTileWords + i / 2 * V::N, kGroupWords, kPartsOfB, split_, a, b);
      }
  }
  SUFFUSE_INLINE void drop(V& a, V& b, int64_t key, int j) const {
    if (modifiers_.keep == nullptr) return;
    const float* const keep = modifiers_.keep + place_of(key) + j * kTileWords;
    a *= load<V>(keep);
    b *= load<V>(keep + V::N);
  }

  const float* from_;
  uint32_t* to_;
  const Panel& panel_;
  const GroupModifiers& modifiers_;
  V factor_, minus_top_[2], sum_[2];
  int64_t products_, credit_ = 0;
  int next_ = 0;
  bool split_;
};

// The largest score of each lane.
template <bool kModified>
SUFFUSE_INLINE void largest_scores(const Work& w, const Job& job, int64_t group, V (&largest)[2]) {
  const float* const scores = scores_of(w, job, group);
  const V none[2] = {zero<V>(), zero<V>()};
  V most[2];
  for (int key = 0; key < kGroup; key += 2) {
    V x[2][2];
    load_scores(x, scores + place_of(key));
    if constexpr (kModified) modifiers_of(w, job, group).modify(x, none, key, [](int, int, V) {});
    for (int j = 0; j < 2; ++j) {
      most[j] = key == 0 ? x[0][j] : max(x[0][j], most[j]);
      most[j] = max(x[1][j], most[j]);
    }
  }
  const V factor(kModified ? 1.f : w.scale.factor);
  for (int j = 0; j < 2; ++j) largest[j] = max(largest[j], most[j] * factor);
}

template <bool kModified>
__attribute__((noinline)) void find_reference(const Work& w, const Job& job, int64_t group) {
  const V lowest(SoftmaxState<V>::kLowest);
  V largest[2] = {lowest, lowest};
  largest_scores<kModified>(w, job, group, largest);
  Mask<V> unset = first<V>(0);
  for (int j = 0; j < 2; ++j) {
    float* const top = job.panel->top + j * V::N;
    const V x = load<V>(top), next = select(x == lowest, largest[j], x);
    store(top, next);
    unset = unset | (next == lowest);
  }
  job.panel->unset = any(unset);
}

// What has to be done to the scores of a group before its softmax.
template <bool kModified>
SUFFUSE_INLINE void prepare(Work& w, const Job& job, int64_t group) {
  const AttentionSequence& s = w.seen;
  const int64_t key = group * kGroup, query = job.panel->first;
  if (!kModified && is_cut(s, key, query)) hide(scores_of(w, job, group), s, key, query);
  if (job.panel->unset) find_reference<kModified>(w, job, group);
}

}  // namespace
}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
