// Launches kernels on a stream. For .cu files alone: emulated kernels are launched by their tests.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "cuda/launch_shape.h"

namespace suffuse {

class Launcher {
 public:
  // op: the word that errors begin with.
  Launcher(const char* op, void* stream) : op_(op), stream_(static_cast<cudaStream_t>(stream)) {}

  // name: what an error calls the kernel.
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const A&... arguments) const {
    constexpr int kUnasked = 48 * 1024;  // more shared memory has to be asked for
    if (shape.blocks > INT32_MAX) {
      throw Error(std::string(op_) + ": " + name +
                  ": expected fewer than 2^31 blocks on CUDA, got " + std::to_string(shape.blocks));
    }
    if (shape.shared_bytes > kUnasked) {
      constexpr auto kMost = cudaFuncAttributeMaxDynamicSharedMemorySize;
      check(name, cudaFuncSetAttribute(kernel, kMost, shape.shared_bytes));
    }
    const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y),
                    static_cast<unsigned>(shape.blocks_z));
    kernel<<<grid, shape.threads, shape.shared_bytes, stream_>>>(arguments...);
    check(name, cudaGetLastError());
  }

 private:
  void check(const char* name, cudaError_t error) const {
    if (error == cudaSuccess) return;
    throw Error(std::string(op_) + ": " + name + ": " + cudaGetErrorString(error));
  }

  const char* op_;
  cudaStream_t stream_;
};

}  // namespace suffuse
