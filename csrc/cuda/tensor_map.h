// Tensor maps: how the tensor memory accelerator (TMA, sm_90) is told of a tensor in global memory.
// Made on the host, handed to kernels as `const __grid_constant__ gpu::TensorMap`.
#pragma once

#include <cstdint>
#include <string>

#include "common/error.h"
#include "cuda/swizzle.h"

#if defined(SUFFUSE_EMULATOR)
#include "cuda/host/tensor_map.h"
#else
#include <cuda.h>
namespace suffuse::gpu {
using TensorMap = CUtensorMap;
}
#endif

namespace suffuse {

// tf32: float in memory, rounded to tf32 on the way into shared memory.
enum class TensorElement : int32_t { bf16, f16, f32, tf32 };

constexpr int tensor_element_bytes(TensorElement element) {
  return element == TensorElement::bf16 || element == TensorElement::f16 ? 2 : 4;
}

// Dimensions from the innermost, which is contiguous. strides[i] is the distance in bytes of
// dimension i + 1.
struct TensorLayout {
  const void* address;
  TensorElement element;
  int rank;  // 1 to 5
  uint64_t sizes[5];
  uint64_t strides[4];
  uint32_t box[5];
  gpu::Swizzle swizzle;
};

// A matrix in rows, `row_bytes` apart, and a box of its columns and rows.
constexpr TensorLayout matrix_layout(const void* address, TensorElement element, int64_t rows,
                                     int64_t columns, int64_t row_bytes, int box_rows,
                                     int box_columns, gpu::Swizzle swizzle) {
  return {address,
          element,
          2,
          {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)},
          {static_cast<uint64_t>(row_bytes)},
          {static_cast<uint32_t>(box_columns), static_cast<uint32_t>(box_rows)},
          swizzle};
}

// Throws Error with what TMA does not take, in words: the driver has one code for all of it. With a
// swizzle the box's rows must fill its span.
inline void check_tensor_layout(const TensorLayout& layout) {
  const auto expect = [](bool holds, const std::string& what) {
    if (!holds) throw Error("tensor map: expected " + what);
  };
  const auto got = [](uint64_t value) { return ", got " + std::to_string(value); };
  expect(layout.rank >= 1 && layout.rank <= 5, "1 to 5 dimensions" + got(layout.rank));
  const auto address = reinterpret_cast<uint64_t>(layout.address);
  expect(address % 16 == 0, "an address that is a multiple of 16" + got(address));
  for (int i = 0; i < layout.rank; i++) {
    expect(layout.sizes[i] >= 1 && layout.sizes[i] <= uint64_t(1) << 32,
           "sizes of 1 to 2^32" + got(layout.sizes[i]));
    expect(layout.box[i] >= 1 && layout.box[i] <= 256, "a box of 1 to 256" + got(layout.box[i]));
  }
  for (int i = 0; i + 1 < layout.rank; i++) {
    expect(layout.strides[i] % 16 == 0 && layout.strides[i] < uint64_t(1) << 40,
           "strides that are multiples of 16 bytes below 2^40" + got(layout.strides[i]));
  }
  const uint64_t row = uint64_t(layout.box[0]) * tensor_element_bytes(layout.element);
  expect(row % 16 == 0, "rows of a box of whole 16 bytes" + got(row));
  const auto span = static_cast<uint64_t>(gpu::swizzle_span(layout.swizzle));
  expect(layout.swizzle == gpu::Swizzle::none || row == span,
         "rows of a box of " + std::to_string(span) + " bytes" + got(row));
}

// Throws Error.
gpu::TensorMap make_tensor_map(const TensorLayout& layout);

}  // namespace suffuse
