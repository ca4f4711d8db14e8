// The CPU kernels of causal_conv1d.
#pragma once

#include "common/isa.h"
#include "ops/causal_conv1d/params.h"

namespace suffuse {
// At least so many bytes of the calling thread's own, at a cache line; valid until its next call.
// Defined in bind.cpp, which is compiled for every CPU.
void* causal_conv1d_scratch(int64_t bytes);
}  // namespace suffuse

// The units [begin, end) of batch x blocks x chunks.
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_fwd_range,
                       (const CausalConv1dParams& p, int64_t begin, int64_t end), (p, begin, end))
// The units [begin, end) of batch x blocks.
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_bwd_range,
                       (const CausalConv1dGradParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
