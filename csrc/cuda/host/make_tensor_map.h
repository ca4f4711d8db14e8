// The emulator's counterpart of cuda/tensor_map.cpp.
#pragma once

#include "cuda/tensor_map.h"

namespace suffuse {

inline gpu::TensorMap make_tensor_map(const TensorLayout& layout) {
  check_tensor_layout(layout);
  gpu::TensorMap result{};
  emulator::TensorMap& map = result.map;
  map.address = const_cast<void*>(layout.address);
  map.rank = layout.rank;
  map.element_bytes = tensor_element_bytes(layout.element);
  map.rounds_to_tf32 = layout.element == TensorElement::tf32;
  for (int i = 0; i < layout.rank; i++) {
    map.size[i] = layout.sizes[i];
    map.box[i] = layout.box[i];
    if (i > 0) map.stride[i - 1] = layout.strides[i - 1];
  }
  map.swizzle = static_cast<emulator::Swizzle>(layout.swizzle);
  return result;
}

}  // namespace suffuse
