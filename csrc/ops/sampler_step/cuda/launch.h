// The CUDA side's entry, for bind.cpp.
#pragma once

#include "ops/sampler_step/params.h"

namespace suffuse {

// Runs the step on a cudaStream_t; where p.scales is set, the quantile kernel first. Throws Error.
void sampler_step_cuda(const SamplerStepParams& p, void* stream);

}  // namespace suffuse
