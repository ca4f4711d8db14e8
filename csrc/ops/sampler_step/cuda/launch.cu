// Launches the CUDA kernels of sampler_step.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/sampler_step/cuda/config.h"
#include "ops/sampler_step/cuda/kernel.cuh"
#include "ops/sampler_step/cuda/launch.h"
#include "ops/sampler_step/cuda/threshold.cuh"

namespace suffuse {
namespace {

void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw Error(std::string("sampler_step: ") + kernel + ": " + cudaGetErrorString(error));
  }
}

template <class X, class M>
void launch_scales(const SamplerStepParams& p, cudaStream_t stream) {
  constexpr int kGroup = group_size(sizeof(X) > sizeof(M) ? sizeof(X) : sizeof(M));
  const LaunchShape shape = sampler_step_scales_shape(p);
  sampler_step_scales_kernel<X, M, kGroup>
      <<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(p);
  check_launch("the quantile kernel");
}

template <class X, class M, int W>
void launch_step(const SamplerStepParams& p, cudaStream_t stream) {
  const LaunchShape shape = sampler_step_shape(p);
  sampler_step_kernel<X, M, W>
      <<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(p);
  check_launch("the step kernel");
}

}  // namespace

void sampler_step_cuda(const SamplerStepParams& p, void* stream) {
  if (p.scales && (p.elements > INT32_MAX || p.batch > INT32_MAX)) {
    throw Error(
        "sampler_step: x: expected less than 2^31 samples and elements in each with a "
        "threshold on CUDA, got " +
        std::to_string(p.batch) + " and " + std::to_string(p.elements));
  }
  const auto on = static_cast<cudaStream_t>(stream);
  visit_sampler_step(p, [&](auto x, auto m, auto group) {
    using X = typename decltype(x)::type;
    using M = typename decltype(m)::type;
    if (p.scales) launch_scales<X, M>(p, on);
    launch_step<X, M, decltype(group)::value>(p, on);
  });
}

}  // namespace suffuse
