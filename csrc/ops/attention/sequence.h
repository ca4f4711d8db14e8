// Where the rows of one sequence of a batch are, and which keys its queries see. Host and device.
#pragma once

#include "ops/attention/params.h"

namespace suffuse {

// Sequence b: T queries from row q_row of batch entry q_batch on, S keys likewise. In a paged cache
// k_row counts from the sequence's first page (see attention_key).
struct AttentionSequence {
  int64_t b, T, S, q_batch, q_row, k_batch, k_row;
  int64_t shift;        // the position of query i is i + shift
  int64_t left, right;  // as in AttentionScores

  // The keys [first_key(i), end_key(i)) are seen by query i.
  SUFFUSE_HD SUFFUSE_INLINE int64_t first_key(int64_t i) const {
    const int64_t key = i + shift - left;
    return key < 0 ? 0 : key;
  }
  SUFFUSE_HD SUFFUSE_INLINE int64_t end_key(int64_t i) const {
    const int64_t key = i + shift + right + 1;
    return key > S ? S : key < 0 ? 0 : key;
  }
};

SUFFUSE_HD SUFFUSE_INLINE AttentionSequence attention_sequence(const AttentionParams& p,
                                                               int64_t b) {
  const AttentionLayout& l = p.layout;
  AttentionSequence s{b, p.T, p.S, b, 0, b, 0, 0, p.scores.left, p.scores.right};
  if (l.q_starts != nullptr) {
    s.q_batch = 0;
    s.q_row = l.q_starts[b];
    s.T = l.q_starts[b + 1] - s.q_row;
  }
  if (l.k_starts != nullptr) {
    s.k_batch = 0;
    s.k_row = l.k_starts[b];
    s.S = l.k_starts[b + 1] - s.k_row;
  }
  if (l.q_used != nullptr) s.T = l.q_used[b];
  if (l.k_used != nullptr) s.S = l.k_used[b];
  if (l.cache_index != nullptr) s.k_batch = l.cache_index[b];
  if (l.left_pad != nullptr) {
    s.k_row += l.left_pad[b];
    s.S = s.S > l.left_pad[b] ? s.S - l.left_pad[b] : 0;
  }
  s.shift = p.scores.top_left ? 0 : s.S - s.T;
  return s;
}

// Element offset of key j of a sequence in a tensor of keys or values.
SUFFUSE_HD SUFFUSE_INLINE int64_t attention_key(const AttentionParams& p, const AttentionTensor& t,
                                                const AttentionSequence& s, int64_t j) {
  const AttentionLayout& l = p.layout;
  const int64_t row = s.k_row + j;
  if (l.pages == nullptr) return s.k_batch * t.batch + row * t.row;
  const int64_t entry = l.pages[s.b * l.pages_row + row / l.page];
  return entry * t.batch + row % l.page * t.row;
}

// Element offset of query i of a sequence in q, out and their gradients.
SUFFUSE_HD SUFFUSE_INLINE int64_t attention_query(const AttentionTensor& t,
                                                  const AttentionSequence& s, int64_t i) {
  return s.q_batch * t.batch + (s.q_row + i) * t.row;
}

// Element offset of query i of a sequence in lse, for head h.
SUFFUSE_HD SUFFUSE_INLINE int64_t attention_lse(const AttentionParams& p,
                                                const AttentionSequence& s, int64_t h, int64_t i) {
  return s.q_batch * p.lse_batch + h * p.lse_head + s.q_row + i;
}

}  // namespace suffuse
