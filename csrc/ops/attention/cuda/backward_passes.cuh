// The kernels of the gradients of attention in their order, for launchers and tests.
#pragma once

#include "ops/attention/cuda/backward.cuh"
#include "ops/attention/cuda/backward_bias.cuh"

namespace suffuse {

// launch(name, kernel, shape, arguments ...). kHead: attention_head of the params.
template <class S, int kHead, bool kGeneral, bool kTf32, class Launch>
void attention_backward_passes(const AttentionGradParams& g, Launch launch) {
  using Keys = AttentionBackward<S, kHead, true, kGeneral, kTf32>;
  using Queries = AttentionBackward<S, kHead, false, kGeneral, kTf32>;
  const AttentionParams& p = g.forward;
  const int bytes = attention_grad_copy_bytes(g);
  const LaunchShape rows = attention_delta_shape(p);
  const LaunchShape keys = attention_backward_shape<Keys>(p);
  const LaunchShape queries = attention_backward_shape<Queries>(p);
  if (rows.blocks > 0) launch("attention_delta_kernel", attention_delta_kernel<S>, rows, g, bytes);
  if (keys.blocks > 0) {
    launch("attention_backward_kernel of keys", attention_backward_kernel<Keys>, keys, g, bytes);
  }
  if (queries.blocks > 0) {
    launch("attention_backward_kernel of queries", attention_backward_kernel<Queries>, queries, g,
           bytes);
  }
  if constexpr (kGeneral) {
    using Bias = AttentionBiasGrad<S, kHead, kTf32>;
    const LaunchShape bias = attention_bias_launch<Bias>(g);
    if (attention_bias_is_shared(g) && bias.blocks > 0) {
      launch("attention_bias_kernel", attention_bias_kernel<Bias>, bias, g, bytes);
    }
  }
}

}  // namespace suffuse
