// Launches the CUDA kernels of guidance_gram.
#include <string>

#include "common/error.h"
#include "cuda/launcher.cuh"
#include "ops/guidance_gram/cuda/kernel.cuh"
#include "ops/guidance_gram/cuda/launch.h"

namespace suffuse {

int64_t guidance_gram_pieces(const GuidanceGramParams& p) { return guidance_gram_pieces_cuda(p); }

void guidance_gram_cuda(const GuidanceGramParams& p, void* stream) {
  if (p.batch > INT32_MAX / GuidanceGramShape::kMostPieces) {
    throw Error("guidance_gram: tensors[0]: expected at most 2097151 samples on CUDA, got " +
                std::to_string(p.batch));
  }
  const Launcher launch("guidance_gram", stream);
  visit_guidance_gram(p, [&](auto type, auto count) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(count)::value;
    if (p.pieces > 0) {
      launch("the kernel of the rows", guidance_gram_rows_kernel<S, N>,
             guidance_gram_rows_shape<N>(p), p, guidance_gram_rounds(p));
    }
    launch("the kernel of the results", guidance_gram_finish_kernel<N>,
           guidance_gram_finish_shape(p), p);
  });
}

}  // namespace suffuse
