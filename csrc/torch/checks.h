// The only tensor -> params helpers: argument checks with errors that name op, argument, expected
// and got.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "common/dtype.h"
#include "common/error.h"

namespace suffuse {

using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

inline std::string to_string(Sizes sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); i++) {
    text += (i ? ", " : "") + std::to_string(sizes[i]);
  }
  return text + (sizes.size() == 1 ? ",)" : ")");
}

inline std::string dtype_name(torch::headeronly::ScalarType type) {
  using torch::headeronly::ScalarType;
  switch (type) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    default:
      return torch::headeronly::toString(type);
  }
}

// "op: argument has ..., expected ..., got ..." in one sentence.
[[noreturn]] inline void fail(const std::string& op, const std::string& argument,
                              const std::string& expected, const std::string& got) {
  throw Error(op + ": " + argument + ": expected " + expected + ", got " + got);
}

inline DType dtype_of(const char* op, const char* argument, const Tensor& t) {
  using torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return DType::f64;
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::BFloat16:
      return DType::bf16;
    case ScalarType::Half:
      return DType::f16;
    default:
      fail(op, argument, "dtype float64, float32, bfloat16 or float16",
           dtype_name(t.scalar_type()));
  }
}

inline void check_same_dtype(const char* op, const char* argument, const Tensor& t,
                             const char* like, const Tensor& other) {
  if (t.scalar_type() != other.scalar_type()) {
    fail(op, argument, "dtype " + dtype_name(other.scalar_type()) + " like " + like,
         dtype_name(t.scalar_type()));
  }
}

inline std::string device_name(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return "device type " + std::to_string(static_cast<int>(t.device().type()));
}

inline void check_same_device(const char* op, const char* argument, const Tensor& t,
                              const char* like, const Tensor& other) {
  if (t.device() != other.device()) {
    fail(op, argument, "device " + device_name(other) + " like " + like, device_name(t));
  }
}

inline void check_rank(const char* op, const char* argument, const Tensor& t, int64_t rank,
                       const char* dims) {
  if (t.dim() != rank) {
    fail(op, argument, "shape " + std::string(dims), to_string(t.sizes()));
  }
}

inline void check_shape(const char* op, const char* argument, const Tensor& t, Sizes expected,
                        const char* why) {
  const Sizes got = t.sizes();
  bool same = got.size() == expected.size();
  for (size_t i = 0; same && i < got.size(); i++) same = got[i] == expected[i];
  if (!same) {
    fail(op, argument, "shape " + to_string(expected) + " " + why, to_string(got));
  }
}

}  // namespace suffuse
