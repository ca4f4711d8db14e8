// The CUDA side's entries, for bind.cpp.
#pragma once

#include "ops/qk_norm/params.h"

namespace suffuse {

// Numbers, in the arithmetic's type, that qk_norm_bwd_cuda needs as its partials.
int64_t qk_norm_partials(const QkNormGradParams& g);

// On a cudaStream_t; forward there is at least one element. Throw Error.
void qk_norm_fwd_cuda(const QkNormParams& p, void* stream);
void qk_norm_bwd_cuda(const QkNormGradParams& g, void* stream);

}  // namespace suffuse
