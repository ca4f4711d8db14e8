// Tensor maps through the driver's encoder. It is looked up at run time, so that the library needs
// no libcuda to load on a machine without a GPU.
#include "cuda/tensor_map.h"

#include <cuda_runtime_api.h>

namespace suffuse {
namespace {

using Encoder = decltype(&cuTensorMapEncodeTiled);

Encoder find_encoder() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  constexpr unsigned kSince = 12000;  // the driver that brought it
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             kSince, cudaEnableDefault, &result);
  if (error != cudaSuccess) {
    throw Error(std::string("tensor map: the CUDA driver cannot be asked: ") +
                cudaGetErrorString(error));
  }
  if (result != cudaDriverEntryPointSuccess || !found) {
    throw Error(
        "tensor map: the CUDA driver has no cuTensorMapEncodeTiled: expected 12.0 or later");
  }
  return reinterpret_cast<Encoder>(found);
}

CUtensorMapDataType data_type(TensorElement element) {
  switch (element) {
    case TensorElement::bf16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case TensorElement::f16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case TensorElement::f32:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case TensorElement::tf32:
      return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  }
  throw Error("tensor map: unknown element type");
}

CUtensorMapSwizzle swizzle_mode(gpu::Swizzle swizzle) {
  switch (swizzle) {
    case gpu::Swizzle::none:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
    case gpu::Swizzle::bytes32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case gpu::Swizzle::bytes64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case gpu::Swizzle::bytes128:
      return CU_TENSOR_MAP_SWIZZLE_128B;
  }
  throw Error("tensor map: unknown swizzle");
}

}  // namespace

gpu::TensorMap make_tensor_map(const TensorLayout& layout) {
  static const Encoder encode = find_encoder();
  check_tensor_layout(layout);
  const cuuint32_t every_element[5] = {1, 1, 1, 1, 1};
  gpu::TensorMap map;
  const CUresult result =
      encode(&map, data_type(layout.element), static_cast<cuuint32_t>(layout.rank),
             const_cast<void*>(layout.address), layout.sizes, layout.strides, layout.box,
             every_element, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_mode(layout.swizzle),
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error("tensor map: cuTensorMapEncodeTiled failed with CUDA error " +
                std::to_string(static_cast<int>(result)));
  }
  return map;
}

}  // namespace suffuse
