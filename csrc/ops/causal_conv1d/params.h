// What the causal_conv1d kernels are given. Strides count elements.
//
//   z_t = bias + sum_k weight_k x_{t - W + 1 + k},  out_t = z_t or silu(z_t)
//
// x_t for t < 0 is the initial state; with `sequence`, x of other sequences counts as 0. Weights,
// bias, their gradients and sums are in the arithmetic's type: float, or double for f64.
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
  const void* weight;       // [channels, width]
  const void* bias;         // [channels] or null
  ConvRows initial;         // [batch, channels, width - 1]; data may be null: 0
  const int32_t* sequence;  // [batch, length] contiguous or null; negative: out is 0 there
  bool silu;
  DType dtype;
};

struct CausalConv1dGradParams {
  CausalConv1dParams forward;  // out: not used
  ConvRows grad_out, grad_x;
  ConvRows grad_initial;          // [batch, channels, width - 1], or data null
  void *grad_weight, *grad_bias;  // [channels, width], [channels]
  // Sums over parts of the batch and of time, to be added up: so many rows of channels x
  // (width + 1), the taps' and the bias's.
  void* partials;
  int64_t partial_rows;
  void* grad_z;  // the CUDA kernels of any width: [batch, channels, length] in the order of x
};

// One or a few steps at once behind a state that is updated in place.
struct CausalConv1dUpdateParams {
  int64_t batch, channels, length, width, state_length;
  ConvRows x, out;
  ConvRows state;            // [slots, channels, state_length]; batch: the stride of slots
  const int32_t* slots;      // [batch] or null: the batch's own; negative: out is 0, no update
  const int32_t* positions;  // [batch] or null: the next place in a circular state
  const void *weight, *bias;
  bool silu;
  DType dtype;
};

}  // namespace suffuse
