// How the gradients of attention are cut for a GPU: plain functions, for launchers, kernels and
// tests.
//
// There are two kernels of one shape. In that of dK and dV a block has rows of keys and walks over
// the queries that see them; in that of dQ it has rows of queries and walks over the keys that they
// see. Both compute the weights again, so that there are 7 products of matrices where one kernel
// for all three would have 5. But that kernel would add up dQ over its blocks of keys: in no fixed
// order, or through one partial dQ of float for each block of keys, which is S / 128 times dQ in
// memory, not O(T). At T = S = 4096 and D = 128 writing and reading those is 134 MB a head, 86 us
// of an A100's memory at 1.56 TB/s; the two products are 8.6 GFLOP, 28 us of its tensor cores at
// their peak. So the products are made twice.
#pragma once

#include "ops/attention/cuda/config.h"

namespace suffuse {

// The rows of a block stay in shared memory, tiles of kColumns rows of the other side pass through
// it. A warp has kRowsOfWarp rows. Its sums, kSums times kRowsOfWarp x kD, fill about half of its
// registers; beyond a head dim of 128 kColumnWarps warps share their rows: each computes its part
// of the weights, they exchange them, and each adds up its part of the head dim.
template <class Element, int kHeadDim, bool kKeysAreRows_, bool kGeneral_, bool kTf32_ = false>
struct AttentionBackward {
  using S = Element;
  static constexpr int kD = kHeadDim, kStages = 2;
  static constexpr bool kKeysAreRows = kKeysAreRows_, kGeneral = kGeneral_, kTf32 = kTf32_;
  static constexpr bool kHalf = sizeof(S) == 2;
  static constexpr int kSums = kKeysAreRows ? 2 : 1;

  static constexpr int kRowsOfWarp = kHalf && !kGeneral && kD <= 64 ? 32 : 16;
  static constexpr int kRows = kHalf       ? (kD <= 128 ? 128 : 64)
                               : kD <= 64  ? 128
                               : kD <= 128 ? 64
                                           : 32;
  static constexpr int kRowWarps = kRows / kRowsOfWarp;
  static constexpr int kColumnWarps = kD * (kHalf ? 1 : 2) <= 128 ? 1 : 2;
  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kColumns = kHalf ? (kD <= 128 ? 64 : 32) : kD <= 128 ? 32 : 16;

  // A warp takes kChunk columns at a time: fewer where its sums leave few registers.
  static constexpr int kDepth = 32 / sizeof(S);  // columns of one A of the second products
  static constexpr int kChunk = kColumns < 32                                  ? kColumns
                                : kRowsOfWarp == 32 && kKeysAreRows && kD > 32 ? 16
                                                                               : 32;
  static constexpr int kTilesM = kRowsOfWarp / 16, kSteps = kChunk / kDepth;
  static constexpr int kOwnColumns = kChunk / kColumnWarps, kTilesN = kOwnColumns / 8;
  static constexpr int kOwnSteps = kOwnColumns / kDepth;
  static constexpr int kOwnDim = kD / kColumnWarps, kTilesD = kOwnDim / 8;
  static_assert(kColumnWarps == 1 || (kTilesM == 1 && kChunk == kColumns));
  static_assert(kTilesD % 2 == 0 && kOwnSteps >= 1);
};

// rowsum(dO O) - dlse and lse of the rows, in the workspace.
struct AttentionDelta {
  static constexpr int kThreads = 128, kLanes = 8;  // lanes of a row
  static constexpr int kRounds = 4, kRows = kRounds * kThreads / kLanes;
};

SUFFUSE_HD inline int64_t attention_row_blocks(int64_t rows, int of_block) {
  return (rows + of_block - 1) / of_block;
}

// Rows of a tensor that belong to sequence b, used or not. Rows of packed tensors that belong to
// none are the caller's to clear.
SUFFUSE_HD inline int64_t attention_query_room(const AttentionParams& p, int64_t b) {
  const int32_t* starts = p.layout.q_starts;
  return starts == nullptr ? p.T : starts[b + 1] - starts[b];
}
SUFFUSE_HD inline int64_t attention_key_room(const AttentionParams& p, int64_t b) {
  const int32_t* starts = p.layout.k_starts;
  return starts == nullptr ? p.S : starts[b + 1] - starts[b];
}

// Rows of lse: the workspace has two numbers for each.
SUFFUSE_HD inline int64_t attention_lse_rows(const AttentionParams& p) {
  return (p.layout.q_starts != nullptr ? 1 : p.B) * p.H * p.lse_head;
}
inline int64_t attention_bwd_floats(const AttentionParams& p) { return 2 * attention_lse_rows(p); }

inline LaunchShape attention_delta_shape(const AttentionParams& p) {
  return {p.B * p.H * attention_row_blocks(p.T, AttentionDelta::kRows), AttentionDelta::kThreads,
          0};
}

template <class Config>
struct AttentionBackwardShared;
template <class Config>
LaunchShape attention_backward_shape(const AttentionParams& p) {
  const int64_t heads = Config::kKeysAreRows ? p.G : p.H;
  const int64_t rows = Config::kKeysAreRows ? p.S : p.T;
  return {p.B * heads * attention_row_blocks(rows, Config::kRows), Config::kThreads,
          static_cast<int32_t>(sizeof(AttentionBackwardShared<Config>))};
}

// attention_copy_bytes, of the gradients too.
inline int attention_grad_copy_bytes(const AttentionGradParams& g) {
  AttentionParams gradients = g.forward;  // whose pointers and strides are the gradients'
  gradients.q = g.grad_q;
  gradients.k = g.grad_k;
  gradients.v = g.grad_v;
  gradients.out = g.grad_out;
  const int bytes = attention_copy_bytes(gradients), of_forward = attention_copy_bytes(g.forward);
  return bytes < of_forward ? bytes : of_forward;
}

inline bool attention_grad_is_general(const AttentionGradParams& g) {
  return attention_is_general(g.forward) || attention_grad_copy_bytes(g) != 16;
}

// Whether the gradient of the bias is asked for and a sum over several heads, sequences, queries or
// keys. Where it is none, the kernel of dQ writes it.
SUFFUSE_HD inline bool attention_bias_is_shared(const AttentionGradParams& g) {
  const AttentionParams& p = g.forward;
  return g.grad_bias != nullptr &&
         ((p.B > 1 && g.grad_bias_batch == 0) || (p.H > 1 && g.grad_bias_head == 0) ||
          (p.T > 1 && g.grad_bias_row == 0) || (p.S > 1 && g.grad_bias_key == 0));
}
SUFFUSE_HD inline bool attention_bias_is_whole(const AttentionGradParams& g) {
  return g.grad_bias != nullptr && !attention_bias_is_shared(g);
}

}  // namespace suffuse
