// make_tensor_map, with a CUDA driver that writes down what it is asked to encode.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "cuda/tensor_map.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

std::string said;
int encoder_result;
bool has_driver, has_encoder;

template <class T>
void say(const char* name, const T* values, cuuint32_t count) {
  said += std::string(" ") + name;
  for (cuuint32_t i = 0; i < count; i++) said += (i ? "," : "=") + std::to_string(values[i]);
}

CUresult CUDAAPI encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                        const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                        const cuuint32_t* steps, CUtensorMapInterleave interleave,
                        CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                        CUtensorMapFloatOOBfill fill) {
  std::memset(map, 0x5a, sizeof *map);
  said = "type=" + std::to_string(type) + " address=" + std::to_string(size_t(address));
  say("sizes", sizes, rank);
  say("strides", strides, rank - 1);
  say("box", box, rank);
  say("steps", steps, rank);
  said += " interleave=" + std::to_string(interleave) + " swizzle=" + std::to_string(swizzle) +
          " fill=" + std::to_string(fill);
  return static_cast<CUresult>(encoder_result);
}

}  // namespace

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                                        unsigned int, unsigned long long,
                                                        cudaDriverEntryPointQueryResult* result) {
  const bool found = has_encoder && std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = found ? reinterpret_cast<void*>(&encode) : nullptr;
  *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return has_driver ? cudaSuccess : cudaErrorInsufficientDriver;
}
extern "C" const char* cudaGetErrorString(cudaError_t) { return "no driver here"; }

// What the driver was asked, or the error's text. driver: 0 none, 1 an old one, 2 a good one.
EXPORT const char* make_map(int driver, int result, int element, int swizzle, int rank,
                            uint64_t address, const uint64_t* sizes, const uint64_t* strides,
                            const uint32_t* box) {
  has_driver = driver > 0;
  has_encoder = driver > 1;
  encoder_result = result;
  said.clear();
  suffuse::TensorLayout layout{};
  layout.address = reinterpret_cast<const void*>(address);
  layout.element = static_cast<suffuse::TensorElement>(element);
  layout.swizzle = static_cast<suffuse::gpu::Swizzle>(swizzle);
  layout.rank = rank;
  for (int i = 0; i < 5; i++) {
    layout.sizes[i] = sizes[i];
    layout.box[i] = box[i];
    if (i < 4) layout.strides[i] = strides[i];
  }
  try {
    const suffuse::gpu::TensorMap map = suffuse::make_tensor_map(layout);
    if (map.opaque[15] != 0x5a5a5a5a5a5a5a5a) said = "the map is not what the driver made";
  } catch (const suffuse::Error& error) {
    said = error.what();
  }
  return said.c_str();
}
