// The CUDA kernels of causal_conv1d, and what runs for a call: plain functions that are given how
// to launch, launch(name, kernel, shape, arguments...).
#pragma once

#include "ops/causal_conv1d/cuda/any.cuh"
#include "ops/causal_conv1d/cuda/columns.cuh"
#include "ops/causal_conv1d/cuda/config.h"
#include "ops/causal_conv1d/cuda/rows.cuh"
#include "ops/causal_conv1d/cuda/update.cuh"

namespace suffuse {

template <class S, class Launch>
void conv_forward(const CausalConv1dParams& p, Launch&& launch) {
  const int64_t pieces = conv_pieces(p), count = p.batch * p.channels * p.length;
  if (count == 0) return;
  if constexpr (sizeof(S) != 8) {
    if (conv_path(p) == ConvPath::rows) {
      return launch("the kernel of rows", conv_rows_forward_kernel<S>,
                    conv_tile_shape(p, sizeof(ConvRowShared<S>)), p, pieces);
    }
    if (conv_path(p) == ConvPath::columns) {
      return launch("the kernel of columns", conv_columns_forward_kernel<S>,
                    conv_tile_shape(p, sizeof(ConvTapRows)), p, pieces, conv_channel_blocks(p));
    }
  }
  launch("the kernel of any width", conv_any_forward_kernel<S>, conv_thread_shape(count), p);
}

// The gradient of x and the partials.
template <class S, class Launch>
void conv_backward_parts(const CausalConv1dGradParams& g, Launch&& launch) {
  const CausalConv1dParams& p = g.forward;
  const int64_t pieces = conv_pieces(p), blocks = conv_channel_blocks(p);
  const int64_t count = p.batch * p.channels * p.length;
  if constexpr (sizeof(S) != 8) {
    if (conv_path(p) == ConvPath::rows) {
      return launch("the backward kernel of rows", conv_rows_backward_kernel<S>,
                    conv_tile_shape(p, sizeof(ConvRowShared<S>)), g, pieces);
    }
    if (conv_path(p) == ConvPath::columns) {
      return launch("the backward kernel of columns", conv_columns_backward_kernel<S>,
                    conv_tile_shape(p, sizeof(ConvColumnShared)), g, pieces, blocks);
    }
  }
  using Reduce = BlockReduce<ConvSums<ConvNumber<S>>>;
  launch("the kernel of slopes", conv_any_slope_kernel<S>, conv_thread_shape(count), g);
  launch("the kernel of the input's gradient", conv_any_input_kernel<S>, conv_thread_shape(count),
         g);
  launch("the kernel of sums", conv_any_sums_kernel<S>,
         conv_tile_shape(p, sizeof(typename Reduce::Shared)), g, pieces, blocks);
}

template <class S, class Launch>
void conv_backward(const CausalConv1dGradParams& g, Launch&& launch) {
  using T = ConvNumber<S>;
  const CausalConv1dParams& p = g.forward;
  const int64_t states = p.batch * p.channels * (p.width - 1);
  if (p.batch * p.channels * p.length > 0) conv_backward_parts<S>(g, launch);
  if (g.grad_initial.data && states > 0) {
    launch("the kernel of the state's gradient", conv_initial_kernel<S>, conv_thread_shape(states),
           g);
  }
  if (p.channels > 0) {
    launch("the kernel of totals", conv_finish_kernel<T>,
           conv_finish_shape(g, sizeof(ConvFinish<T>)), g);
  }
}

template <class S, class Launch>
void conv_update(const CausalConv1dUpdateParams& p, Launch&& launch) {
  const int64_t rows = p.batch * p.channels;
  if (rows == 0) return;
  launch("the kernel of updates", conv_update_kernel<S>, conv_thread_shape(rows), p);
}

}  // namespace suffuse
