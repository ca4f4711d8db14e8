// Launches the CUDA kernels of guidance_gram.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/guidance_gram/cuda/kernel.cuh"
#include "ops/guidance_gram/cuda/launch.h"

namespace suffuse {
namespace {

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, cudaStream_t stream,
            A... arguments) {
  kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(
      arguments...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw Error(std::string("guidance_gram: ") + name + ": " + cudaGetErrorString(error));
  }
}

}  // namespace

int64_t guidance_gram_pieces(const GuidanceGramParams& p) { return guidance_gram_pieces_cuda(p); }

void guidance_gram_cuda(const GuidanceGramParams& p, void* stream) {
  if (p.batch > INT32_MAX / GuidanceGramShape::kMostPieces) {
    throw Error("guidance_gram: tensors[0]: expected at most 2097151 samples on CUDA, got " +
                std::to_string(p.batch));
  }
  const auto on = static_cast<cudaStream_t>(stream);
  visit_guidance_gram(p, [&](auto type, auto count) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(count)::value;
    if (p.pieces > 0) {
      launch("the kernel of the rows", guidance_gram_rows_kernel<S, N>,
             guidance_gram_rows_shape<N>(p), on, p, guidance_gram_rounds(p));
    }
    launch("the kernel of the results", guidance_gram_finish_kernel<N>,
           guidance_gram_finish_shape(p), on, p);
  });
}

}  // namespace suffuse
