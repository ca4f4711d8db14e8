// What the causal_conv1d kernels are given. Strides count elements.
//
//   z_t = bias + sum_k weight_k x_{t - W + 1 + k},  out_t = z_t or silu(z_t)
//
// x_t for t < 0 is the initial state; with `sequence`, x of other sequences counts as 0.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

// A tensor [batch, channel, time] of the call's dtype; channels or steps are adjacent.
struct ConvRows {
  void* data;
  int64_t batch, channel, time;
};

struct CausalConv1dParams {
  int64_t batch, channels, length, width;
  ConvRows x, out;
  // In the arithmetic's type: float, or double for f64.
  const void* weight;       // [channels, width]
  const void* bias;         // [channels] or null
  ConvRows initial;         // [batch, channels, width - 1] of the call's dtype; data may be null: 0
  const int32_t* sequence;  // [batch, length] contiguous or null; negative: out is 0 there
  bool silu;
  DType dtype;
};

struct CausalConv1dGradParams {
  CausalConv1dParams forward;  // out: not used
  ConvRows grad_out, grad_x;
  ConvRows grad_initial;  // [batch, channels, width - 1], or data null
  // In the arithmetic's type, one a batch entry, to be added up: [batch, channels, width] and
  // [batch, channels].
  void *grad_weight, *grad_bias;
};

// Channels are taken in blocks; steps in chunks, each of which starts from the width - 1 before it.
constexpr int64_t kConvLanes = 16, kConvChunk = 2048;

inline int64_t conv_blocks(const CausalConv1dParams& p) {
  return (p.channels + kConvLanes - 1) / kConvLanes;
}
inline int64_t conv_chunks(const CausalConv1dParams& p) {
  return (p.length + kConvChunk - 1) / kConvChunk;
}

}  // namespace suffuse
