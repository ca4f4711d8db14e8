// The CUDA side's entries, for bind.cpp.
#pragma once

#include "ops/causal_conv1d/params.h"

namespace suffuse {

// What the backward pass needs: rows of partials, and elements of grad_z (0 for a null pointer).
int64_t causal_conv1d_partial_rows(const CausalConv1dParams& p);
int64_t causal_conv1d_grad_z(const CausalConv1dParams& p);

// They run on a cudaStream_t and throw Error. x, out, grad_out and grad_x have the same neighbours.
void causal_conv1d_fwd_cuda(const CausalConv1dParams& p, void* stream);
void causal_conv1d_bwd_cuda(const CausalConv1dGradParams& g, void* stream);
void causal_conv1d_update_cuda(const CausalConv1dUpdateParams& p, void* stream);

}  // namespace suffuse
