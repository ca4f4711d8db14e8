// linear_scan's meeting point with torch: checks, outputs, params. Compiled once for the CPU and
// once for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "ops/linear_scan/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/linear_scan/cuda/launch.h"
#else
#include "ops/linear_scan/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

constexpr char kOp[] = "linear_scan";
#if defined(SUFFUSE_CUDA)
constexpr bool kReadsChannels = false;  // rows of adjacent channels
#else
constexpr bool kReadsChannels = true;
#endif

struct Type {
  DType dtype;
  bool complex;
};

Type type_of(const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::ComplexFloat:
      return {DType::f32, true};
    case ScalarType::ComplexDouble:
      return {DType::f64, true};
    case ScalarType::Double:
    case ScalarType::Float:
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return {dtype_of(kOp, name, t), false};
    default:
      fail(kOp, name, "dtype float64, float32, bfloat16, float16, complex64 or complex128",
           dtype_name(t.scalar_type()));
  }
}

ScalarType state_type(const Type& type) {
  if (type.complex) {
    return type.dtype == DType::f64 ? ScalarType::ComplexDouble : ScalarType::ComplexFloat;
  }
  return type.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

// As the kernel reads rows, or a copy that it can; the copy lives in `kept`.
LinearScanRows rows(const Tensor& t, bool complex, bool may_be_constant,
                    std::vector<Tensor>& kept) {
  const bool constant = may_be_constant && t.stride(2) == 0 && t.size(2) > 0;
  const bool steps = t.stride(2) == 1 || t.size(2) <= 1;
  const bool channels = kReadsChannels && !complex && (t.stride(1) == 1 || t.size(1) <= 1);
  kept.push_back(constant || steps || channels ? t : torch::stable::contiguous(t));
  const Tensor& k = kept.back();
  void* data = const_cast<void*>(k.const_data_ptr());
  if (constant) return {data, k.stride(0), k.stride(1), 0};
  if (steps || !channels) return {data, k.stride(0), k.stride(1), 1};
  return {data, k.stride(0), 1, k.stride(2)};
}

Tensor empty_like_rows(const Tensor& x, bool complex) {
  if (complex || x.stride(2) == 1 || x.size(2) <= 1) return empty(x, x.sizes(), x.scalar_type());
  const int64_t sizes[] = {x.size(0), x.size(2), x.size(1)};
  return torch::stable::transpose(empty(x, Sizes(sizes, 3), x.scalar_type()), 1, 2);
}

#if defined(SUFFUSE_CUDA)

void run(LinearScanParams& p, Tensor& h, const Tensor&) {
  if (p.batch * p.channels == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(h.get_device_index());
  const bool steps = h.stride(2) == 1 || p.length <= 1;
  Tensor result = steps ? h : empty(h, h.sizes(), h.scalar_type());
  p.h = {result.mutable_data_ptr(), result.stride(0), result.stride(1), 1};
  const int64_t words[] = {linear_scan_workspace(p)};
  std::optional<Tensor> workspace;
  if (words[0] > 0) workspace = torch::stable::new_zeros(h, Sizes(words, 1), ScalarType::Int);
  const auto stream = torch::stable::accelerator::getCurrentStream(h.get_device_index());
  linear_scan_cuda(p, workspace ? workspace->mutable_data_ptr() : nullptr, stream.nativeHandle());
  if (!steps) torch::stable::copy_(h, result);
}

#else

void run_in_segments(LinearScanWork& p, const Tensor& last) {
  const int64_t rows = p.batch * p.channels, blocks = rows * linear_scan_segment_blocks(p);
  const int64_t numbers[] = {rows * 2 * linear_scan_segments(p)};
  Tensor workspace = empty(last, Sizes(numbers, 1), last.scalar_type());
  p.workspace = workspace.mutable_data_ptr();
  const auto run_phase = [&](LinearScanPhase phase, int64_t units, int64_t grain) {
    torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
      linear_scan_phase(p, phase, begin, end);
    });
  };
  constexpr int64_t kGrain = 16;  // blocks of a thousand steps
  run_phase(LinearScanPhase::sum, blocks, kGrain);
  run_phase(LinearScanPhase::chain, rows, 1);
  run_phase(LinearScanPhase::finish, blocks, kGrain);
}

void run(LinearScanParams& p, const Tensor& h, const Tensor& last) {
  std::vector<Tensor> kept;
  p.h = rows(h, p.complex, false, kept);
  LinearScanWork work{p, linear_scan_width(p, torch::stable::get_num_threads()), nullptr};
  if (linear_scan_in_segments(p)) return run_in_segments(work, last);
  torch::stable::parallel_for(
      0, linear_scan_units(work), 100000 / (work.width * p.length + 1) + 1,
      [&](int64_t begin, int64_t end) { linear_scan_range(work, begin, end); });
}

#endif

std::tuple<Tensor, Tensor> linear_scan(Tensor a, Tensor x, Optional initial, Optional sequence,
                                       bool reverse, bool lagged) {
  check_rank(kOp, "x", x, 3, "[B, C, T]");
  const Type type = type_of("x", x), a_type = type_of("a", a);
  check_shape(kOp, "a", a, x.sizes(), "like x");
  check_same_device(kOp, "a", a, "x", x);
  const bool wide_a = !type.complex && type.dtype != DType::f64 && a_type.dtype == DType::f32;
  if (a.scalar_type() != x.scalar_type() && !(wide_a && !a_type.complex)) {
    fail(kOp, "a", "dtype " + dtype_name(x.scalar_type()) + " like x", dtype_name(a.scalar_type()));
  }
  LinearScanParams p{};
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.length = x.size(2);
  p.reverse = reverse;
  p.lagged = lagged;
  p.complex = type.complex;
  p.dtype = type.dtype;
  p.a_dtype = a_type.dtype;
  std::vector<Tensor> kept;
  p.a = rows(a, type.complex, true, kept);
  p.x = rows(x, type.complex, false, kept);
  const int64_t states[] = {p.batch, p.channels};
  if (initial) {
    check_shape(kOp, "initial_state", *initial, Sizes(states, 2), "[B, C]");
    if (initial->scalar_type() != state_type(type)) {
      fail(kOp, "initial_state", "dtype " + dtype_name(state_type(type)),
           dtype_name(initial->scalar_type()));
    }
    check_same_device(kOp, "initial_state", *initial, "x", x);
    kept.push_back(torch::stable::contiguous(*initial));
    p.initial = kept.back().const_data_ptr();
  }
  if (sequence) {
    const int64_t sizes[] = {p.batch, p.length};
    check_shape(kOp, "seq_idx", *sequence, Sizes(sizes, 2), "[B, T]");
    if (sequence->scalar_type() != ScalarType::Int) {
      fail(kOp, "seq_idx", "dtype int32", dtype_name(sequence->scalar_type()));
    }
    check_same_device(kOp, "seq_idx", *sequence, "x", x);
    kept.push_back(torch::stable::contiguous(*sequence));
    p.sequence = static_cast<const int32_t*>(kept.back().const_data_ptr());
  }
  Tensor h = empty_like_rows(x, type.complex);
  Tensor last = empty(x, Sizes(states, 2), state_type(type));
  p.last = last.mutable_data_ptr();
  run(p, h, last);
  return {h, last};
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("linear_scan", TORCH_BOX(&suffuse::linear_scan));
}
