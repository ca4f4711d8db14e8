// Launches the CUDA kernels of qk_norm.
#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "ops/qk_norm/cuda/kernel.cuh"
#include "ops/qk_norm/cuda/launch.h"

namespace suffuse {
namespace {

// Launches on a stream.
class Launcher {
 public:
  explicit Launcher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const A&... arguments) const {
    const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y));
    kernel<<<grid, shape.threads, shape.shared_bytes, stream_>>>(arguments...);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
      throw Error(std::string("qk_norm: ") + name + ": " + cudaGetErrorString(error));
    }
  }

 private:
  cudaStream_t stream_;
};

void check_size(const QkNormParams& p) {
  const int group = group_size(sizeof_dtype(p.dtype));
  const int64_t most = int64_t{2} * group * (QkNormShape::kWideThreads - 1);
  if (p.columns > most) {
    throw Error("qk_norm: q: expected at most " + std::to_string(most) +
                " columns of a head on CUDA, got " + std::to_string(p.columns));
  }
  const int64_t heads = p.sides[0].heads + p.sides[1].heads;
  if (p.batch * p.length > INT32_MAX || heads > INT32_MAX ||
      p.batch * p.length * heads > INT32_MAX) {
    throw Error("qk_norm: q: expected at most 2147483647 heads of all tokens on CUDA, got " +
                std::to_string(p.batch * p.length) + " tokens of " + std::to_string(heads));
  }
}

}  // namespace

int64_t qk_norm_partials(const QkNormGradParams& g) {
  const int group = group_size(sizeof_dtype(g.forward.dtype));
  return (qk_norm_partial_rows(g, 0, group) + qk_norm_partial_rows(g, 1, group)) *
         qk_norm_row(g.forward, group);
}

void qk_norm_fwd_cuda(const QkNormParams& p, void* stream) {
  check_size(p);
  visit_dtype(p.dtype,
              [&](auto s) { qk_norm_forward<typename decltype(s)::type>(p, Launcher(stream)); });
}

void qk_norm_bwd_cuda(const QkNormGradParams& g, void* stream) {
  check_size(g.forward);
  visit_dtype(g.forward.dtype,
              [&](auto s) { qk_norm_backward<typename decltype(s)::type>(g, Launcher(stream)); });
}

}  // namespace suffuse
