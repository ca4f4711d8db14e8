// What the attention kernels are given. Strides count elements; the last dimension of every tensor
// is contiguous. Host and device: nothing here needs more than <cstdint>.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/macros.h"

namespace suffuse {

// A tensor [batch, row, head, dim]; rows are queries or keys.
struct AttentionTensor {
  void* data;
  int64_t batch, row, head;
};

// What is added to the scores.
enum class AttentionBias : int32_t {
  none,
  mask,  // bool: false hides the key
  same,  // in the dtype of q
  wide   // float, or double for f64
};

// How q k^T becomes a score, in this order: s = scale q k^T; s = softcap tanh(s / softcap); then
// s += -slope |position - key| + bias; then keys outside the window are hidden.
struct AttentionScores {
  double scale;
  double softcap;       // 0: none
  int64_t left, right;  // the query at position p sees the keys [p - left, p + right]
  bool top_left;        // the position of query i is i, and not i + S - T
  AttentionBias bias_kind;
  const void* bias;
  int64_t bias_batch, bias_head, bias_row, bias_key;  // strides, 0 where broadcast
  const void* alibi;    // slopes [B or 1, H], float (double for f64), or null
  int64_t alibi_batch;  // stride, 0 where all sequences have the same
  const void* sinks;    // [H] float (double for f64), or null: a logit without a value
  double dropout;       // probability of 0; a weight that stays is divided by 1 - dropout
  const int64_t* seed;  // of the dropout's random numbers (see dropout.h), or null
};

// Lengths and places that differ from sequence to sequence; null where they do not.
struct AttentionLayout {
  const int32_t *q_starts,
      *k_starts;  // [B + 1]: packed, sequence b has the rows [starts[b], starts[b + 1])
  const int32_t *q_used, *k_used;  // [B]: only so many rows count
  // A cache of keys and values. Its entry of sequence b is cache_index[b], else b.
  const int32_t* cache_index;  // [B]
  const int32_t* left_pad;     // [B]: the first key that counts; positions begin there
  const int32_t* pages;        // [B, pages_row]: the entry that holds keys [n page, (n + 1) page)
  int64_t pages_row, page;
};

// "All of them" for left and right: far from overflow when added to a position.
constexpr int64_t kAttentionUnlimited = int64_t{1} << 40;

struct AttentionParams {
  AttentionTensor q, k, v, out;  // [B, T, H, D], [B, S, G, D], [B, S, G, Dv], [B, T, H, Dv]
  void* lse;                     // natural log, queries adjacent; float, or double for f64
  int64_t lse_batch, lse_head;
  int64_t B, T, S, H, G, D, Dv;  // T and S: the longest sequence's
  int64_t block_rows, blocks;    // queries of one unit of work, and units of one (batch, head)
  const int64_t* block_starts;   // [B + 1]: blocks of the sequences before each one where their
                                 // lengths differ, else null
  DType dtype;
  AttentionScores scores;
  AttentionLayout layout;
};

struct AttentionGradParams {
  AttentionParams forward;
  AttentionTensor grad_out, grad_q, grad_k, grad_v;
  const void* grad_lse;  // like lse, or null
  void* grad_bias;       // wide, in the broadcast shape and with the strides below, or null
  int64_t grad_bias_batch, grad_bias_head, grad_bias_row, grad_bias_key;  // 0 where broadcast
  bool bias_apart;  // several units would add to the same element of grad_bias: it has its own pass
  // A (batch, kv head) is one unit, or `chunks` units whose dK and dV meet in the workspace.
  int64_t chunks;
  void* workspace;  // [B G chunks][S][padded(D) + padded(Dv)] of float (double for f64); null if
                    // chunks == 1
};

// dK and dV are accumulated in rows of whole vectors of any ISA.
SUFFUSE_HD constexpr int64_t attention_padded(int64_t dim) { return (dim + 15) / 16 * 16; }

}  // namespace suffuse
