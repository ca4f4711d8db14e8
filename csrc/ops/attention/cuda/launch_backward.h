// The CUDA side's entry for the gradients of attention, for bind.cpp.
#pragma once

#include "ops/attention/params.h"

namespace suffuse {

// Floats of workspace that a call needs.
int64_t attention_bwd_cuda_floats(const AttentionGradParams& g);

// Fills grad_q, grad_k, grad_v and, if it is there, grad_bias on a cudaStream_t. Rows of packed
// tensors that belong to no sequence are not touched. tf32: products of float are rounded to tf32.
// Throws Error: float64, a head dim above 256, 2^28 positions or more.
void attention_bwd_cuda(const AttentionGradParams& g, void* stream, bool tf32 = false);

}  // namespace suffuse
