// The CPU kernels of s4_kernel.
#pragma once

#include "common/isa.h"
#include "ops/s4_kernel/params.h"

// The units [begin, end) of rows x chunks of outputs.
SUFFUSE_DECLARE_KERNEL(void, s4_vandermonde_range,
                       (const S4VandermondeParams& p, int64_t begin, int64_t end), (p, begin, end))

// The units [begin, end) of rows x chunks of u.
SUFFUSE_DECLARE_KERNEL(void, s4_moments_range,
                       (const S4MomentsParams& p, int64_t begin, int64_t end), (p, begin, end))

// Adds the partial sums of the rows [begin, end) up, in order.
SUFFUSE_DECLARE_KERNEL(void, s4_moments_finish_range,
                       (const S4MomentsParams& p, int64_t begin, int64_t end), (p, begin, end))

constexpr int64_t kS4CauchyOutputs = 256;

// The units [begin, end) of rows x blocks of kS4CauchyOutputs outputs.
SUFFUSE_DECLARE_KERNEL(void, s4_cauchy_range, (const S4CauchyParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
