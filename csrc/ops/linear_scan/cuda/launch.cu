// Launches the CUDA kernels of linear_scan.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/linear_scan/cuda/kernel.cuh"
#include "ops/linear_scan/cuda/launch.h"

namespace suffuse {
namespace {

template <class A, class S, bool kReverse>
void launch(const LinearScanParams& p, void* workspace, cudaStream_t stream) {
  with_linear_scan_kernel<A, S, kReverse>(
      p, workspace, [&](const char* name, auto kernel, const LaunchShape& shape, auto... given) {
        kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(
            given...);
        const cudaError_t error = cudaGetLastError();
        if (error != cudaSuccess) {
          throw Error(std::string("linear_scan: ") + name + ": " + cudaGetErrorString(error));
        }
      });
}

}  // namespace

int64_t linear_scan_workspace(const LinearScanParams& p) { return linear_scan_workspace_words(p); }

void linear_scan_cuda(const LinearScanParams& p, void* workspace, void* stream) {
  if (p.batch * p.channels > INT32_MAX) {
    throw Error("linear_scan: x: expected less than 2^31 rows on CUDA, got " +
                std::to_string(p.batch * p.channels));
  }
  const auto on = static_cast<cudaStream_t>(stream);
  visit_linear_scan(p, [&](auto a, auto x) {
    using A = typename decltype(a)::type;
    using S = typename decltype(x)::type;
    p.reverse ? launch<A, S, true>(p, workspace, on) : launch<A, S, false>(p, workspace, on);
  });
}

}  // namespace suffuse
