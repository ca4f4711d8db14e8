// The CPU kernels of attention.
#pragma once

#include "common/isa.h"
#include "ops/attention/params.h"

namespace suffuse {
// At least so many bytes of the calling thread's own, at a cache line; valid until its next call.
// Kept between calls, since fresh pages cost more than a short sequence. Defined in bind.cpp, which
// is compiled for every CPU.
void* attention_scratch(int64_t bytes);
}  // namespace suffuse

// out and lse of the units [begin, end) of B H blocks; unit u is a block of (batch, head) u /
// blocks.
SUFFUSE_DECLARE_KERNEL(void, attention_fwd_range,
                       (const AttentionParams& p, int64_t begin, int64_t end), (p, begin, end))
// The gradients of the units [begin, end) of B G chunks; with chunks > 1, dK and dV go to the
// workspace.
SUFFUSE_DECLARE_KERNEL(void, attention_bwd_range,
                       (const AttentionGradParams& p, int64_t begin, int64_t end), (p, begin, end))
// grad_bias where it is `bias_apart`, of its units [begin, end): its own (batch, head, block), or
// (batch, head) where the queries share it.
SUFFUSE_DECLARE_KERNEL(void, attention_bwd_bias_range,
                       (const AttentionGradParams& p, int64_t begin, int64_t end), (p, begin, end))
// dK and dV from the workspace, of the pairs (batch, kv head) [begin, end).
SUFFUSE_DECLARE_KERNEL(void, attention_bwd_sum_range,
                       (const AttentionGradParams& p, int64_t begin, int64_t end), (p, begin, end))
