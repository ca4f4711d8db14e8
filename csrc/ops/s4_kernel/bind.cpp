// s4_kernel's meeting point with torch: checks, outputs, params. Compiled once for the CPU and once
// for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>

#include "ops/s4_kernel/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/s4_kernel/cuda/launch.h"
#else
#include "ops/s4_kernel/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;

constexpr char kVandermonde[] = "log_vandermonde", kTranspose[] = "log_vandermonde_transpose",
               kCauchy[] = "cauchy_mult";

DType parts_of(const char* op, const char* name, const Tensor& t) {
  if (t.scalar_type() == ScalarType::ComplexFloat) return DType::f32;
  if (t.scalar_type() == ScalarType::ComplexDouble) return DType::f64;
  fail(op, name, "dtype complex64 or complex128", dtype_name(t.scalar_type()));
}

ScalarType real_type(DType dtype) {
  return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

Tensor empty_rows(const Tensor& like, int64_t rows, int64_t columns, ScalarType type) {
  const int64_t sizes[] = {rows, columns};
  return empty(like, Sizes(sizes, 2), type);
}

// Calls run(begin, end) for parts of the units that take so many multiply-adds each.
template <class Fn>
void in_parallel(int64_t units, int64_t work, const Fn& run) {
  torch::stable::parallel_for(0, units, 100000 / (work + 1) + 1, run);
}

#if defined(SUFFUSE_CUDA)

// The current stream of a device while it is the current one.
class Stream {
 public:
  explicit Stream(const Tensor& t) : guard_(t.get_device_index()), index_(t.get_device_index()) {}
  void* get() const { return torch::stable::accelerator::getCurrentStream(index_).nativeHandle(); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  int32_t index_;
};

void run(const S4VandermondeParams& p, const Tensor& out) {
  s4_vandermonde_cuda(p, Stream(out).get());
}
void run(const S4MomentsParams& p, const Tensor& out) { s4_moments_cuda(p, Stream(out).get()); }
void run(const S4CauchyParams& p, const Tensor& out) { s4_cauchy_cuda(p, Stream(out).get()); }

#else

void run(const S4VandermondeParams& p, const Tensor&) {
  const int64_t chunks = s4_chunks(p.length), work = p.terms * p.length / chunks / 4;
  in_parallel(p.rows * chunks, work, [&](int64_t b, int64_t e) { s4_vandermonde_range(p, b, e); });
}

void run(const S4MomentsParams& p, const Tensor&) {
  const int64_t chunks = s4_chunks(p.length), work = p.terms * p.length / chunks / 2;
  in_parallel(p.rows * chunks, work, [&](int64_t b, int64_t e) { s4_moments_range(p, b, e); });
  if (chunks == 1) return;
  const int64_t sums = 2 * chunks * p.terms;
  in_parallel(p.rows, sums, [&](int64_t b, int64_t e) { s4_moments_finish_range(p, b, e); });
}

void run(const S4CauchyParams& p, const Tensor&) {
  const int64_t blocks = (p.outputs + kS4CauchyOutputs - 1) / kS4CauchyOutputs;
  const int64_t work = 4 * p.terms * (p.outputs < kS4CauchyOutputs ? p.outputs : kS4CauchyOutputs);
  in_parallel(p.rows * blocks, work, [&](int64_t b, int64_t e) { s4_cauchy_range(p, b, e); });
}

#endif

Tensor vandermonde(Tensor v, Tensor x, int64_t length, bool real) {
  check_rank(kVandermonde, "v", v, 2, "[R, N]");
  const DType dtype = parts_of(kVandermonde, "v", v);
  check_shape(kVandermonde, "x", x, v.sizes(), "like v");
  check_same_dtype(kVandermonde, "x", x, "v", v);
  check_same_device(kVandermonde, "x", x, "v", v);
  if (length < 0) fail(kVandermonde, "L", "at least 0", std::to_string(length));
  v = torch::stable::contiguous(v);
  x = torch::stable::contiguous(x);
  S4VandermondeParams p{};
  p.rows = v.size(0);
  p.terms = v.size(1);
  p.length = length;
  Tensor out = empty_rows(v, p.rows, length, real ? real_type(dtype) : v.scalar_type());
  p.v = v.const_data_ptr();
  p.x = x.const_data_ptr();
  p.out = out.mutable_data_ptr();
  p.real = real;
  p.dtype = dtype;
  if (p.rows * length > 0) run(p, out);
  return out;
}

std::tuple<Tensor, Tensor> moments(Tensor u, Tensor x) {
  check_rank(kTranspose, "x", x, 2, "[R, N]");
  const DType dtype = parts_of(kTranspose, "x", x);
  check_rank(kTranspose, "u", u, 2, "[R, L]");
  const int64_t sizes[] = {x.size(0), u.size(1)};
  check_shape(kTranspose, "u", u, Sizes(sizes, 2), "[R, L]");
  if (u.scalar_type() != real_type(dtype)) check_same_dtype(kTranspose, "u", u, "x", x);
  check_same_device(kTranspose, "u", u, "x", x);
  u = torch::stable::contiguous(u);
  x = torch::stable::contiguous(x);
  S4MomentsParams p{};
  p.rows = x.size(0);
  p.terms = x.size(1);
  p.length = u.size(1);
  Tensor zeroth = empty_rows(x, p.rows, p.terms, x.scalar_type());
  Tensor first = empty_rows(x, p.rows, p.terms, x.scalar_type());
  p.u = u.const_data_ptr();
  p.x = x.const_data_ptr();
  p.zeroth = zeroth.mutable_data_ptr();
  p.first = first.mutable_data_ptr();
  p.complex = u.scalar_type() == x.scalar_type();
  p.dtype = dtype;
  if (p.length == 0) {
    torch::stable::zero_(zeroth);
    torch::stable::zero_(first);
    return {zeroth, first};
  }
  std::optional<Tensor> partials;
  if (s4_chunks(p.length) > 1) {
    partials = empty_rows(x, p.rows * s4_chunks(p.length), 2 * p.terms, x.scalar_type());
    p.partials = partials->mutable_data_ptr();
  }
  if (p.rows * p.terms > 0) run(p, zeroth);
  return {zeroth, first};
}

// [rows or 1, columns]
void check_operand(const char* name, const Tensor& t, const Tensor& v) {
  check_rank(kCauchy, name, t, 2, "[R, N]");
  if (t.size(0) != 1 && t.size(0) != v.size(0)) {
    fail(kCauchy, name, "1 or " + std::to_string(v.size(0)) + " rows, like v",
         std::to_string(t.size(0)));
  }
  check_same_dtype(kCauchy, name, t, "v", v);
  check_same_device(kCauchy, name, t, "v", v);
}

std::tuple<Tensor, Tensor> cauchy(Tensor v, Tensor z, Tensor w, int64_t power, bool conj,
                                  bool next) {
  check_rank(kCauchy, "v", v, 2, "[R, N]");
  const DType dtype = parts_of(kCauchy, "v", v);
  check_operand("z", z, v);
  check_operand("w", w, v);
  if (w.size(1) != v.size(1)) {
    fail(kCauchy, "w", std::to_string(v.size(1)) + " terms like v", std::to_string(w.size(1)));
  }
  if (power < 1 || power > 64) fail(kCauchy, "power", "1 to 64", std::to_string(power));
  v = torch::stable::contiguous(v);
  z = torch::stable::contiguous(z);
  w = torch::stable::contiguous(w);
  S4CauchyParams p{};
  p.rows = v.size(0);
  p.outputs = z.size(1);
  p.terms = v.size(1);
  Tensor out = empty_rows(v, p.rows, p.outputs, v.scalar_type());
  Tensor above = empty_rows(v, next ? p.rows : 0, p.outputs, v.scalar_type());
  p.v = v.const_data_ptr();
  p.z = z.const_data_ptr();
  p.w = w.const_data_ptr();
  p.z_row = z.size(0) == 1 ? 0 : p.outputs;
  p.w_row = w.size(0) == 1 ? 0 : p.terms;
  p.out = out.mutable_data_ptr();
  p.next = next ? above.mutable_data_ptr() : nullptr;
  p.power = static_cast<int32_t>(power);
  p.conj = conj;
  p.dtype = dtype;
  if (p.rows * p.outputs > 0) run(p, out);
  return {out, above};
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("s4_kernel_vandermonde", TORCH_BOX(&suffuse::vandermonde));
  m.impl("s4_kernel_moments", TORCH_BOX(&suffuse::moments));
  m.impl("s4_kernel_cauchy", TORCH_BOX(&suffuse::cauchy));
}
