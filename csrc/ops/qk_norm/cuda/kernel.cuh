// The CUDA kernels of qk_norm, and what runs for a call: plain functions that are given how to
// launch, launch(name, kernel, shape, arguments...).
#pragma once

#include "ops/qk_norm/cuda/backward.cuh"
#include "ops/qk_norm/cuda/forward.cuh"

namespace suffuse {

template <class S, class Launch>
void qk_norm_forward(const QkNormParams& p, Launch&& launch) {
  constexpr int W = group_size(sizeof(S));
  const bool wide = qk_norm_wide(p, W);
  const LaunchShape shape = qk_norm_shape(
      p, W, wide ? sizeof(QkNormForwardShared<S, true>) : sizeof(QkNormForwardShared<S, false>));
  if (shape.blocks == 0) return;
  launch(wide ? "the kernel of wide heads" : "the kernel of heads",
         wide ? qk_norm_forward_kernel<S, true> : qk_norm_forward_kernel<S, false>, shape, p);
}

template <class S, class Launch>
void qk_norm_backward(const QkNormGradParams& g, Launch&& launch) {
  constexpr int W = group_size(sizeof(S));
  const QkNormParams& p = g.forward;
  const bool wide = qk_norm_wide(p, W);
  const LaunchShape shape = qk_norm_bwd_shape(
      g, W, wide ? sizeof(QkNormBackwardShared<S, true>) : sizeof(QkNormBackwardShared<S, false>));
  if (shape.blocks > 0) {
    launch(wide ? "the backward kernel of wide heads" : "the backward kernel of heads",
           wide ? qk_norm_backward_kernel<S, true> : qk_norm_backward_kernel<S, false>, shape, g);
  }
  if (g.grad_weight[0] || g.grad_weight[1]) {
    launch("the kernel of totals", qk_norm_finish_kernel<S>, qk_norm_finish_shape(p, W), g);
  }
}

}  // namespace suffuse
