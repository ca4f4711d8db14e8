// The CPU kernel of rotary.
#pragma once

#include "common/isa.h"
#include "ops/rotary/params.h"

// The tokens [begin, end) of batch x time, with all their heads.
SUFFUSE_DECLARE_KERNEL(void, rotary_range, (const RotaryParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
