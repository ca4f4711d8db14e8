// Launches the CUDA kernels of s4_kernel.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/s4_kernel/cuda/cauchy.cuh"
#include "ops/s4_kernel/cuda/kernel.cuh"
#include "ops/s4_kernel/cuda/launch.h"
#include "ops/s4_kernel/cuda/moments.cuh"

namespace suffuse {
namespace {

void check(cudaError_t error, const char* name) {
  if (error != cudaSuccess) {
    throw Error(std::string("s4_kernel: ") + name + ": " + cudaGetErrorString(error));
  }
}

// Takes what the functions with_..._kernel hand out.
auto launcher(void* stream) {
  return [stream](const char* name, auto kernel, const LaunchShape& shape, auto... given) {
    constexpr int kUnasked = 48 * 1024;
    if (shape.blocks > INT32_MAX) {
      throw Error(std::string("s4_kernel: ") + name + ": expected less than 2^31 blocks, got " +
                  std::to_string(shape.blocks));
    }
    if (shape.shared_bytes > kUnasked) {
      constexpr auto kMost = cudaFuncAttributeMaxDynamicSharedMemorySize;
      check(cudaFuncSetAttribute(kernel, kMost, shape.shared_bytes), name);
    }
    kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes,
             static_cast<cudaStream_t>(stream)>>>(given...);
    check(cudaGetLastError(), name);
  };
}

}  // namespace

void s4_vandermonde_cuda(const S4VandermondeParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_vandermonde_kernel<double>(p, launcher(stream))
                        : with_s4_vandermonde_kernel<float>(p, launcher(stream));
}

void s4_moments_cuda(const S4MomentsParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_moments_kernels<double>(p, launcher(stream))
                        : with_s4_moments_kernels<float>(p, launcher(stream));
}

void s4_cauchy_cuda(const S4CauchyParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_cauchy_kernel<double>(p, launcher(stream))
                        : with_s4_cauchy_kernel<float>(p, launcher(stream));
}

}  // namespace suffuse
