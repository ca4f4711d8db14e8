// The CUDA side's entry, for bind.cpp.
#pragma once

#include "ops/guidance_gram/params.h"

namespace suffuse {

// Rows of partials that a sample needs on CUDA; 0 where it has no elements.
int64_t guidance_gram_pieces(const GuidanceGramParams& p);

// Fills p.gram and p.means on a cudaStream_t. Throws Error.
void guidance_gram_cuda(const GuidanceGramParams& p, void* stream);

}  // namespace suffuse
