// The CPU kernels of attention whose products run on the bfloat16 units: AMX, or AVX512-BF16. They
// have no form for other instruction sets.
#pragma once

#include "common/isa.h"
#include "ops/attention/params.h"

namespace suffuse {
namespace avx512_bf16 {
void attention_half_fwd_range(const AttentionParams& p, int64_t begin, int64_t end);
void attention_half_bwd_range(const AttentionGradParams& p, int64_t begin, int64_t end);
void attention_half_bwd_bias_range(const AttentionGradParams& p, int64_t begin, int64_t end);
}  // namespace avx512_bf16
namespace amx {
void attention_half_fwd_range(const AttentionParams& p, int64_t begin, int64_t end);
void attention_half_bwd_range(const AttentionGradParams& p, int64_t begin, int64_t end);
void attention_half_bwd_bias_range(const AttentionGradParams& p, int64_t begin, int64_t end);
}  // namespace amx
}  // namespace suffuse
