// Tensors as kernels see them.
#pragma once

#include <cstdint>

namespace suffuse {

// A tensor [batch, elements] with dense samples.
struct SampleView {
  const void* data;
  int64_t batch_stride;  // in elements
};

}  // namespace suffuse
