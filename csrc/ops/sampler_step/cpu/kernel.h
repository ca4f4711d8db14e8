// The CPU kernels of sampler_step. A unit is a chunk of kSamplerStepChunk elements of one sample:
// chunk u % chunks of sample u / chunks.
#pragma once

#include "common/isa.h"
#include "ops/sampler_step/params.h"

// The step itself, on units.
SUFFUSE_DECLARE_KERNEL(void, sampler_step_range,
                       (const SamplerStepParams& p, int64_t begin, int64_t end), (p, begin, end))
// p.magnitudes = |D| after the clip, on units.
SUFFUSE_DECLARE_KERNEL(void, sampler_step_magnitudes,
                       (const SamplerStepParams& p, int64_t begin, int64_t end), (p, begin, end))
// p.scales from p.magnitudes, on samples.
SUFFUSE_DECLARE_KERNEL(void, sampler_step_scales,
                       (const SamplerStepParams& p, int64_t begin, int64_t end), (p, begin, end))
