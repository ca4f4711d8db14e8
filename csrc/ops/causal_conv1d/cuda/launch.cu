// Launches the CUDA kernels of causal_conv1d.
#include "cuda/launcher.cuh"
#include "ops/causal_conv1d/cuda/kernel.cuh"
#include "ops/causal_conv1d/cuda/launch.h"

namespace suffuse {

int64_t causal_conv1d_partial_rows(const CausalConv1dParams& p) { return p.batch * conv_pieces(p); }

int64_t causal_conv1d_grad_z(const CausalConv1dParams& p) {
  return conv_path(p) == ConvPath::any ? p.batch * p.channels * p.length : 0;
}

void causal_conv1d_fwd_cuda(const CausalConv1dParams& p, void* stream) {
  visit_dtype(p.dtype, [&](auto s) {
    conv_forward<typename decltype(s)::type>(p, Launcher("causal_conv1d", stream));
  });
}

void causal_conv1d_bwd_cuda(const CausalConv1dGradParams& g, void* stream) {
  visit_dtype(g.forward.dtype, [&](auto s) {
    conv_backward<typename decltype(s)::type>(g, Launcher("causal_conv1d", stream));
  });
}

void causal_conv1d_update_cuda(const CausalConv1dUpdateParams& p, void* stream) {
  visit_dtype(p.dtype, [&](auto s) {
    conv_update<typename decltype(s)::type>(p, Launcher("causal_conv1d", stream));
  });
}

}  // namespace suffuse
