// The CUDA side's entries, for bind.cpp.
#pragma once

#include "ops/s4_kernel/params.h"

namespace suffuse {

// Each runs its product on a cudaStream_t; there is at least one row and one output. Throws Error.
void s4_vandermonde_cuda(const S4VandermondeParams& p, void* stream);
void s4_moments_cuda(const S4MomentsParams& p, void* stream);
void s4_cauchy_cuda(const S4CauchyParams& p, void* stream);

}  // namespace suffuse
