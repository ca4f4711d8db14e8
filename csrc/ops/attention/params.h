// What the attention kernels are given. Strides count elements; the last dimension of every tensor
// is contiguous.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

// A tensor [batch, row, head, dim]; rows are queries or keys.
struct AttentionTensor {
  void* data;
  int64_t batch, row, head;
};

struct AttentionParams {
  AttentionTensor q, k, v, out;  // [B, T, H, D], [B, S, G, D], [B, S, G, Dv], [B, T, H, Dv]
  void* lse;                     // [B, H, T] contiguous, natural log; float, or double for f64
  int64_t B, T, S, H, G, D, Dv;
  int64_t block_rows, blocks;  // queries of one unit of work, and units of one (batch, head)
  double scale;
  bool causal;
  int64_t shift;  // causal: query i sees the keys j <= i + shift
  DType dtype;
};

struct AttentionGradParams {
  AttentionParams forward;
  AttentionTensor grad_out, grad_q, grad_k, grad_v;
  const void* grad_lse;  // like lse, or null
  // A (batch, kv head) is one unit, or `chunks` units whose dK and dV meet in the workspace.
  int64_t chunks;
  void* workspace;  // [B G chunks][S][padded(D) + padded(Dv)] of float (double for f64); null if
                    // chunks == 1
};

// dK and dV are accumulated in rows of whole vectors of any ISA.
constexpr int64_t attention_padded(int64_t dim) { return (dim + 15) / 16 * 16; }

}  // namespace suffuse
