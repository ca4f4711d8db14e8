// Which calls go to the kernels on the bfloat16 units.
#pragma once

#include <cstdint>

#include "ops/attention/cpu/half/kernel.h"
#include "ops/attention/cpu/scores-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

// They work on 32 queries and 32 keys at a time: with less than half of that the fp32 kernels are
// faster. They know no scale of 0 (which takes the sign from q). The three products of float16 are
// worth it on AMX alone.
SUFFUSE_INLINE bool suits_half(const AttentionParams& p) {
  const bool dtype = p.dtype == DType::bf16 || (p.dtype == DType::f16 && current_isa() == Isa::amx);
  return dtype && p.T >= 16 && p.S >= 16 && p.scores.scale != 0;
}

// Runs the units and returns true, or does nothing.
SUFFUSE_INLINE bool forward_in_half([[maybe_unused]] const AttentionParams& p,
                                    [[maybe_unused]] int64_t begin, [[maybe_unused]] int64_t end) {
#if defined(__AVX512BF16__)
  if (!suits_half(p)) return false;
  if (current_isa() == Isa::amx) {
    amx::attention_half_fwd_range(p, begin, end);
  } else {
    avx512_bf16::attention_half_fwd_range(p, begin, end);
  }
  return true;
#else
  return false;
#endif
}

SUFFUSE_INLINE bool backward_in_half([[maybe_unused]] const AttentionGradParams& p,
                                     [[maybe_unused]] int64_t begin, [[maybe_unused]] int64_t end) {
#if defined(__AVX512BF16__)
  if (!suits_half(p.forward)) return false;
  if (current_isa() == Isa::amx) {
    amx::attention_half_bwd_range(p, begin, end);
  } else {
    avx512_bf16::attention_half_bwd_range(p, begin, end);
  }
  return true;
#else
  return false;
#endif
}

SUFFUSE_INLINE bool bias_in_half([[maybe_unused]] const AttentionGradParams& p,
                                 [[maybe_unused]] int64_t begin, [[maybe_unused]] int64_t end) {
#if defined(__AVX512BF16__)
  if (!suits_half(p.forward)) return false;
  if (current_isa() == Isa::amx) {
    amx::attention_half_bwd_bias_range(p, begin, end);
  } else {
    avx512_bf16::attention_half_bwd_bias_range(p, begin, end);
  }
  return true;
#else
  return false;
#endif
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
