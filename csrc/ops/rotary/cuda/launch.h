// The CUDA side's entry, for bind.cpp.
#pragma once

#include "ops/rotary/params.h"

namespace suffuse {

// Rotates on a cudaStream_t; there is at least one element. Throws Error.
void rotary_cuda(const RotaryParams& p, void* stream);

}  // namespace suffuse
