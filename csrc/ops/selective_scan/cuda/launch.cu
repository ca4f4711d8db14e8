// Launches the CUDA kernels of selective_scan.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/selective_scan/cuda/launch.h"
#include "ops/selective_scan/cuda/passes.cuh"
#include "ops/selective_scan/cuda/update.cuh"

namespace suffuse {
namespace {

struct Launcher {
  cudaStream_t stream;

  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  A... arguments) const {
    constexpr int kUnasked = 48 * 1024;  // more shared memory has to be asked for
    if (shape.blocks > INT32_MAX) {
      throw Error("selective_scan: u: expected fewer than 2^31 blocks on CUDA, got " +
                  std::to_string(shape.blocks));
    }
    if (shape.shared_bytes > kUnasked) {
      check(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       shape.shared_bytes));
    }
    kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream>>>(
        arguments...);
    check(name, cudaGetLastError());
  }

  static void check(const char* name, cudaError_t error) {
    if (error != cudaSuccess) {
      throw Error(std::string("selective_scan: ") + name + ": " + cudaGetErrorString(error));
    }
  }
};

}  // namespace

int64_t selective_scan_fwd_floats(const SelectiveScanParams& p) {
  return scan_forward_floats(p, scan_forward_cut(p));
}
int64_t selective_scan_bwd_floats(const SelectiveScanParams& p) {
  return scan_backward_floats(p, scan_backward_cut(p));
}

void selective_scan_fwd_cuda(const SelectiveScanParams& p, void* stream) {
  const Launcher launch{static_cast<cudaStream_t>(stream)};
  visit_scan(p.dtype, [&](auto tag) {
    scan_forward_passes<typename decltype(tag)::type>(p, scan_forward_cut(p), launch);
  });
}

void selective_scan_bwd_cuda(const SelectiveScanGradParams& g, void* stream) {
  const Launcher launch{static_cast<cudaStream_t>(stream)};
  visit_scan(g.forward.dtype, [&](auto tag) {
    scan_backward_passes<typename decltype(tag)::type>(g, scan_backward_cut(g.forward), launch);
  });
}

void selective_state_update_cuda(const StateUpdateParams& p, void* stream) {
  const Launcher launch{static_cast<cudaStream_t>(stream)};
  visit_state_update(p, [&](auto tag, auto state_tag) {
    using S = typename decltype(tag)::type;
    using T = typename decltype(state_tag)::type;
    launch("selective_state_update_kernel", selective_state_update_kernel<S, T>,
           state_update_shape(p), p, static_cast<int>(state_update_lanes(p)));
  });
}

}  // namespace suffuse
