// The only tensor -> params helpers: argument checks with errors that name op, argument, expected
// and got.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/error.h"
#include "common/view.h"

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

// Dense samples [B, ...] of so many elements, at any distance, as they are; of all else a copy,
// which `copies` keeps.
inline SampleView sample_view(const Tensor& t, int64_t elements, std::vector<Tensor>& copies) {
  if (t.is_contiguous()) return {t.const_data_ptr(), elements};
  const Sizes sizes = t.sizes(), strides = t.strides();
  int64_t dense = 1;
  bool samples_dense = true;
  for (size_t i = sizes.size() - 1; i > 0; i--) {
    samples_dense = samples_dense && (sizes[i] == 1 || strides[i] == dense);
    dense *= sizes[i];
  }
  if (samples_dense) return {t.const_data_ptr(), strides[0]};
  copies.push_back(torch::stable::contiguous(t));
  return {copies.back().const_data_ptr(), elements};
}

}  // namespace suffuse
