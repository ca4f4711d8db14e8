// Launches the CUDA kernels of causal_conv1d.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/causal_conv1d/cuda/kernel.cuh"
#include "ops/causal_conv1d/cuda/launch.h"

namespace suffuse {
namespace {

// Launches on a stream.
class Launcher {
 public:
  explicit Launcher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const A&... arguments) const {
    if (shape.blocks > INT32_MAX) {
      throw Error("causal_conv1d: x: expected at most 2147483647 blocks on CUDA, got " +
                  std::to_string(shape.blocks));
    }
    kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, stream_>>>(
        arguments...);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
      throw Error(std::string("causal_conv1d: ") + name + ": " + cudaGetErrorString(error));
    }
  }

 private:
  cudaStream_t stream_;
};

}  // namespace

int64_t causal_conv1d_partial_rows(const CausalConv1dParams& p) { return p.batch * conv_pieces(p); }

int64_t causal_conv1d_grad_z(const CausalConv1dParams& p) {
  return conv_path(p) == ConvPath::any ? p.batch * p.channels * p.length : 0;
}

void causal_conv1d_fwd_cuda(const CausalConv1dParams& p, void* stream) {
  visit_dtype(p.dtype,
              [&](auto s) { conv_forward<typename decltype(s)::type>(p, Launcher(stream)); });
}

void causal_conv1d_bwd_cuda(const CausalConv1dGradParams& g, void* stream) {
  visit_dtype(g.forward.dtype,
              [&](auto s) { conv_backward<typename decltype(s)::type>(g, Launcher(stream)); });
}

void causal_conv1d_update_cuda(const CausalConv1dUpdateParams& p, void* stream) {
  visit_dtype(p.dtype,
              [&](auto s) { conv_update<typename decltype(s)::type>(p, Launcher(stream)); });
}

}  // namespace suffuse
