// Launches a kernel on a stream.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "common/error.h"
#include "cuda/launch_shape.h"

namespace suffuse {

struct AttentionLauncher {
  cudaStream_t stream;

  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  A... arguments) const {
    constexpr int kUnasked = 48 * 1024;  // more shared memory has to be asked for
    if (shape.blocks > INT32_MAX) {
      throw Error("attention: q: expected fewer than 2^31 blocks on CUDA, got " +
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
      throw Error(std::string("attention: ") + name + ": " + cudaGetErrorString(error));
    }
  }
};

}  // namespace suffuse
