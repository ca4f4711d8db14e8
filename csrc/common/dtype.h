// Element types that kernels see. Storage only: arithmetic happens in float or double.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace suffuse {

enum class DType : int32_t { f64, f32, bf16, f16 };

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

SUFFUSE_HD constexpr int64_t sizeof_dtype(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

template <class T>
struct TypeTag {
  using type = T;
};

// Calls fn(TypeTag<T>{}) with the storage type of dtype.
template <class Fn>
SUFFUSE_INLINE void visit_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f64:
      return fn(TypeTag<double>{});
    case DType::f32:
      return fn(TypeTag<float>{});
    case DType::bf16:
      return fn(TypeTag<bfloat16>{});
    case DType::f16:
      return fn(TypeTag<float16>{});
  }
}

}  // namespace suffuse
