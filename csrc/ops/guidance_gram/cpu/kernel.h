// The CPU kernels of guidance_gram.
#pragma once

#include "common/isa.h"
#include "ops/guidance_gram/params.h"

namespace suffuse {

// Elements that make one row of partials.
constexpr int64_t kGuidanceGramPiece = 4096;

}  // namespace suffuse

// Rows [begin, end) of partials: row r is piece r % pieces of sample r / pieces.
SUFFUSE_DECLARE_KERNEL(void, guidance_gram_rows,
                       (const GuidanceGramParams& p, int64_t begin, int64_t end), (p, begin, end))
