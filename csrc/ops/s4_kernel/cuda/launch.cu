// Launches the CUDA kernels of s4_kernel.
#include "cuda/launcher.cuh"
#include "ops/s4_kernel/cuda/cauchy.cuh"
#include "ops/s4_kernel/cuda/kernel.cuh"
#include "ops/s4_kernel/cuda/launch.h"
#include "ops/s4_kernel/cuda/moments.cuh"

namespace suffuse {

void s4_vandermonde_cuda(const S4VandermondeParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_vandermonde_kernel<double>(p, Launcher("s4_kernel", stream))
                        : with_s4_vandermonde_kernel<float>(p, Launcher("s4_kernel", stream));
}

void s4_moments_cuda(const S4MomentsParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_moments_kernels<double>(p, Launcher("s4_kernel", stream))
                        : with_s4_moments_kernels<float>(p, Launcher("s4_kernel", stream));
}

void s4_cauchy_cuda(const S4CauchyParams& p, void* stream) {
  p.dtype == DType::f64 ? with_s4_cauchy_kernel<double>(p, Launcher("s4_kernel", stream))
                        : with_s4_cauchy_kernel<float>(p, Launcher("s4_kernel", stream));
}

}  // namespace suffuse
