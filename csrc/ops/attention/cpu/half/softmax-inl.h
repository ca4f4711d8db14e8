// The softmax of the forward: weights from scores, and the reference they are relative to.
#pragma once

#include "ops/attention/cpu/half/rows-inl.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

constexpr int kGroups = 4;  // of a job
constexpr float kLargestSum = 0x1p64f;

struct Panel {
  uint32_t* q;  // tiles [D / 32][2] of B: Q^T
  float* out;   // tiles [Dv / 16][2] of sums: O^T before its division
  float *top, *sum;
  int64_t first;  // query
  bool unset;     // whether some top is still to be found
};

// The groups [begin, end) of keys of one block, which a panel sees.
struct Job {
  Panel* panel = nullptr;       // null: none
  int64_t begin = 0, end = 0;   // in groups
  uint32_t* weights = nullptr;  // tiles [kGroups][2] of B: P^T
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
  uint32_t *k, *v;       // by groups: tiles [2][D / 32], [Dv / 16] of A: K, V^T
  int64_t packed, packed_end, packed_b, packed_head;  // what is packed: groups [packed, packed_end)
  int64_t most;                                       // how many are packed at a time
  int64_t k_depth, v_rows;
  Scale<float> scale;
};

SUFFUSE_INLINE float* scores_of(const Work& w, const Job& job, int64_t group) {
  return w.scores[(job.scores + group - job.begin) % 2];
}

// The weights of a group, some of them at every step of the products that run behind.
class Softmax {
 public:
  SUFFUSE_INLINE Softmax(const Work& w, const Job& job, int64_t group, int64_t products)
      : from_(scores_of(w, job, group)),
        to_(job.weights + (group - job.begin) * kGroupWords),
        panel_(*job.panel),
        factor_(w.scale.factor),
        products_(products) {
    for (int j = 0; j < 2; ++j) {
      minus_top_[j] = -load<V>(panel_.top + j * V::N);
      sum_[j] = load<V>(panel_.sum + j * V::N);
    }
  }
  SUFFUSE_INLINE void step() {
    credit_ += kParts;
    if (credit_ < products_) return;
    credit_ -= products_;
    part();
  }
  SUFFUSE_INLINE void finish() {
    while (next_ < kParts) part();
    for (int j = 0; j < 2; ++j) store(panel_.sum + j * V::N, sum_[j]);
  }

 private:
  static constexpr int kKeys = 4, kParts = kGroup / kKeys;

  SUFFUSE_INLINE void part() {
    const int64_t key = next_++ * kKeys;
    const float* const from = from_ + key / 16 * 2 * kTileWords + key % 16 * V::N;
    uint32_t* const to = to_ + key / 2 * V::N;
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
#pragma GCC unroll 2
      for (int i = 0; i < kKeys; i += 2) {
        const float* const x = from + j * kTileWords + i * V::N;
        const V a = exp2_near(muladd(load<V>(x), factor_, minus_top_[j]));
        const V b = exp2_near(muladd(load<V>(x + V::N), factor_, minus_top_[j]));
        sum_[j] += a;
        sum_[j] += b;
        store_int(to + j * kTileWords + i / 2 * V::N, nearest_pairs(a, b));
      }
  }

  const float* from_;
  uint32_t* to_;
  const Panel& panel_;
  V factor_, minus_top_[2], sum_[2];
  int64_t products_, credit_ = 0;
  int next_ = 0;
};

// The largest scaled score of each lane.
SUFFUSE_INLINE void largest_scores(const Work& w, const Job& job, int64_t group, V (&largest)[2]) {
  const float* const scores = scores_of(w, job, group);
  for (int j = 0; j < 2; ++j) {
    V x = load<V>(scores + j * kTileWords);
    for (int i = 0; i < kGroup; ++i)
      x = max(load<V>(scores + (i / 16 * 2 + j) * kTileWords + i % 16 * V::N), x);
    largest[j] = max(largest[j], x * V(w.scale.factor));
  }
}

__attribute__((noinline)) void find_reference(const Work& w, const Job& job, int64_t group) {
  const V lowest(SoftmaxState<V>::kLowest);
  V largest[2] = {lowest, lowest};
  largest_scores(w, job, group, largest);
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
SUFFUSE_INLINE void prepare(const Work& w, const Job& job, int64_t group) {
  const AttentionSequence& s = w.seen;
  const int64_t key = group * kGroup, query = job.panel->first;
  if (is_cut(s, key, query)) hide(scores_of(w, job, group), s, key, query);
  if (job.panel->unset) find_reference(w, job, group);
}

}  // namespace
}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
