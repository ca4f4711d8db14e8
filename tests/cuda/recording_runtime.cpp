#include "recording_runtime.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <map>

namespace recording {
namespace {

constexpr int kUnasked = 48 * 1024;

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  void* stream;
};

struct Runtime {
  std::map<const void*, std::string> symbols;
  std::map<const void*, int> most_shared_bytes;
  std::vector<Configuration> configurations;
  std::vector<Launch> launches;
  int compute_capability = 80;
};

// Constructed when the first kernel is registered, before main.
Runtime& runtime() {
  static Runtime instance;
  return instance;
}

cudaError_t record(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
  Runtime& r = runtime();
  const auto asked = r.most_shared_bytes.find(kernel);
  const int most = asked == r.most_shared_bytes.end() ? kUnasked : asked->second;
  r.launches.push_back({r.symbols.at(kernel), grid, block, shared_bytes, most});
  return cudaSuccess;
}

// Takes every tensor map: cuda/tensor_map.h has checked it.
CUresult CUDAAPI encode(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                        const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                        CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                        CUtensorMapFloatOOBfill) {
  return CUDA_SUCCESS;
}

}  // namespace

const std::vector<Launch>& launches() { return runtime().launches; }

void set_compute_capability(int value) { runtime().compute_capability = value; }

void print() {
  const char* separator = "[";
  for (const Launch& l : launches()) {
    std::printf("%s\n{\"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], ",
                separator, l.kernel.c_str(), l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y,
                l.block.z);
    std::printf("\"shared\": %zu, \"most_shared\": %d}", l.shared_bytes, l.most_shared_bytes);
    separator = ",";
  }
  std::printf("]\n");
}

}  // namespace recording

using recording::runtime;

extern "C" {

// What the code that nvcc makes of <<<>>> calls.
void** __cudaRegisterFatBinary(void* binary) { return static_cast<void**>(binary); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* symbol, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  runtime().symbols[host] = symbol;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  runtime().configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes,
                                       void* stream) {
  const recording::Configuration top = runtime().configurations.back();
  runtime().configurations.pop_back();
  *grid = top.grid;
  *block = top.block;
  *shared_bytes = top.shared_bytes;
  *static_cast<void**>(stream) = top.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**,
                               size_t shared_bytes, cudaStream_t) {
  return recording::record(kernel, grid, block, shared_bytes);
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared_bytes,
                             cudaStream_t) {
  return recording::record(kernel, grid, block, shared_bytes);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  return recording::record(kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes);
}

// What launchers call themselves.
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    runtime().most_shared_bytes[kernel] = value;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = runtime().compute_capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = runtime().compute_capability % 10;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 132;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned int,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = reinterpret_cast<void*>(&recording::encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "recorded"; }

}  // extern "C"
