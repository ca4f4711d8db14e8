// The CPU kernels of attention for few queries.
#pragma once

#include "common/isa.h"
#include "ops/attention/decode.h"

// The partial results of the units [begin, end) of B chunks.
SUFFUSE_DECLARE_KERNEL(void, attention_decode_range,
                       (const AttentionDecodeParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
// out and lse of the rows [begin, end) of B H T.
SUFFUSE_DECLARE_KERNEL(void, attention_decode_merge_range,
                       (const AttentionDecodeParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
