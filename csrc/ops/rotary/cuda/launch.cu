// Launches the CUDA kernel of rotary.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/rotary/cuda/kernel.cuh"
#include "ops/rotary/cuda/launch.h"

namespace suffuse {
namespace {

void check_size(const RotaryParams& p, int64_t blocks) {
  if (p.columns > INT32_MAX || p.heads > INT32_MAX || p.heads * p.columns > INT32_MAX) {
    throw Error("rotary: x: expected at most 2147483647 columns of a token on CUDA, got " +
                std::to_string(p.heads) + " heads of " + std::to_string(p.columns));
  }
  if (p.batch * p.length > INT32_MAX || blocks > INT32_MAX) {
    throw Error(
        "rotary: x: expected at most 2147483647 tokens, and blocks of threads, on CUDA, got " +
        std::to_string(p.batch * p.length) + " and " + std::to_string(blocks));
  }
}

}  // namespace

void rotary_cuda(const RotaryParams& p, void* stream) {
  const LaunchShape shape = rotary_shape(p);
  check_size(p, shape.blocks);
  if (shape.blocks == 0) return;  // in place, and no column is rotated
  visit_rotary(p, [&](auto x, auto table) {
    rotary_kernel<typename decltype(x)::type, typename decltype(table)::type>
        <<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes,
           static_cast<cudaStream_t>(stream)>>>(p);
  });
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw Error(std::string("rotary: ") + cudaGetErrorString(error));
}

}  // namespace suffuse
