// causal_conv1d's meeting point with torch: checks, outputs, params.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "ops/causal_conv1d/cpu/kernel.h"
#include "ops/causal_conv1d/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

namespace suffuse {

void* causal_conv1d_scratch(int64_t bytes) {
  constexpr int64_t kLine = 64;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local int64_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = (bytes + kLine - 1) / kLine * kLine;
    memory.reset(std::aligned_alloc(kLine, static_cast<size_t>(size)));
    if (memory == nullptr) {
      size = 0;
      fail("causal_conv1d", "scratch", std::to_string(bytes) + " bytes of memory", "none");
    }
  }
  return memory.get();
}

namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

template <size_t n>
Sizes shape(const int64_t (&sizes)[n]) {
  return Sizes(sizes, n);
}

ScalarType wide_type(DType dtype) {
  return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

bool steps_adjacent(const Tensor& t) { return t.stride(2) == 1 || t.size(2) <= 1; }

// Like x, with the steps or the channels adjacent as they are there.
Tensor empty_like_rows(const Tensor& x) {
  if (steps_adjacent(x)) return empty(x, x.sizes(), x.scalar_type());
  const int64_t sizes[] = {x.size(0), x.size(2), x.size(1)};
  return torch::stable::transpose(empty(x, shape(sizes), x.scalar_type()), 1, 2);
}

// Checks and fills the params; keeps the copies of what is not laid out as the kernels read it.
class Call {
 public:
  Call(const char* op, const Tensor& x, const Tensor& weight, const Optional& bias,
       const Optional& initial, const Optional& sequence, bool silu)
      : op_(op), x_(x) {
    check_rank(op, "x", x, 3, "[B, D, L]");
    p.dtype = dtype_of(op, "x", x);
    p.batch = x.size(0);
    p.channels = x.size(1);
    p.length = x.size(2);
    p.silu = silu;
    check_rank(op, "weight", weight, 2, "[D, W]");
    p.width = weight.size(1);
    const int64_t weights[] = {p.channels, p.width};
    check_shape(op, "weight", weight, shape(weights), "[D, W] with D of x");
    if (p.width < 1)
      fail(op, "weight", "a width of 1 or more in [D, W]", to_string(weight.sizes()));
    p.weight = wide("weight", weight);
    if (bias) {
      check_shape(op, "bias", *bias, shape({p.channels}), "[D]");
      p.bias = wide("bias", *bias);
    }
    p.x = rows(x);
    if (initial) p.initial = rows(state("initial_state", *initial));
    if (sequence) p.sequence = indices(*sequence);
  }

  // [B, D, W - 1] of x's dtype.
  const Tensor& state(const char* name, const Tensor& t) const {
    const int64_t sizes[] = {p.batch, p.channels, p.width - 1};
    check_shape(op_, name, t, shape(sizes), "[B, D, W - 1]");
    check_same_dtype(op_, name, t, "x", x_);
    check_same_device(op_, name, t, "x", x_);
    return t;
  }

  ConvRows rows(const Tensor& t) {
    const bool steps = steps_adjacent(t), channels = t.stride(1) == 1 || t.size(1) <= 1;
    kept_.push_back(steps || channels ? t : torch::stable::contiguous(t));
    const Tensor& kept = kept_.back();
    const bool along_time = steps || !channels;
    return {const_cast<void*>(kept.const_data_ptr()), kept.stride(0),
            along_time ? kept.stride(1) : 1, along_time ? 1 : kept.stride(2)};
  }

  CausalConv1dParams p{};

 private:
  const void* wide(const char* name, const Tensor& t) {
    if (t.scalar_type() != wide_type(p.dtype)) {
      fail(op_, name, "dtype " + dtype_name(wide_type(p.dtype)), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "x", x_);
    kept_.push_back(torch::stable::contiguous(t));
    return kept_.back().const_data_ptr();
  }

  const int32_t* indices(const Tensor& t) {
    const int64_t sizes[] = {p.batch, p.length};
    check_shape(op_, "seq_idx", t, shape(sizes), "[B, L]");
    if (t.scalar_type() != ScalarType::Int) {
      fail(op_, "seq_idx", "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(op_, "seq_idx", t, "x", x_);
    kept_.push_back(torch::stable::contiguous(t));
    return static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }

  const char* op_;
  const Tensor& x_;
  std::vector<Tensor> kept_;
};

// Units of a parallel loop that are worth a task of their own.
int64_t grain(int64_t multiply_adds) { return 200000 / (multiply_adds + 1) + 1; }

Tensor causal_conv1d_fwd(Tensor x, Tensor weight, Optional bias, Optional initial,
                         Optional sequence, bool silu) {
  Call call("causal_conv1d", x, weight, bias, initial, sequence, silu);
  CausalConv1dParams& p = call.p;
  Tensor out = empty_like_rows(x);
  p.out = call.rows(out);
  const int64_t steps = p.length < kConvChunk ? p.length : kConvChunk;
  torch::stable::parallel_for(
      0, p.batch * conv_blocks(p) * conv_chunks(p), grain(kConvLanes * steps * p.width),
      [&](int64_t begin, int64_t end) { causal_conv1d_fwd_range(p, begin, end); });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> causal_conv1d_bwd(Tensor grad_out, Tensor x,
                                                             Tensor weight, Optional bias,
                                                             Optional initial, Optional sequence,
                                                             bool silu) {
  constexpr char kOp[] = "causal_conv1d backward";
  Call call(kOp, x, weight, bias, initial, sequence, silu);
  CausalConv1dGradParams g{};
  CausalConv1dParams& p = g.forward = call.p;
  check_shape(kOp, "grad_out", grad_out, x.sizes(), "like x");
  check_same_dtype(kOp, "grad_out", grad_out, "x", x);
  check_same_device(kOp, "grad_out", grad_out, "x", x);
  g.grad_out = call.rows(grad_out);
  Tensor grad_x = empty_like_rows(x);
  const int64_t weights[] = {p.batch, p.channels, p.width}, biases[] = {p.batch, p.channels};
  Tensor grad_weight = empty(x, shape(weights), wide_type(p.dtype));
  Tensor grad_bias = empty(x, shape(biases), wide_type(p.dtype));
  const int64_t states[] = {p.batch, p.channels, initial ? p.width - 1 : 0};
  Tensor grad_initial = empty(x, shape(states), x.scalar_type());
  g.grad_x = call.rows(grad_x);
  if (initial) g.grad_initial = call.rows(grad_initial);
  g.grad_weight = grad_weight.mutable_data_ptr();
  g.grad_bias = grad_bias.mutable_data_ptr();
  torch::stable::parallel_for(
      0, p.batch * conv_blocks(p), grain(3 * kConvLanes * p.length * p.width),
      [&](int64_t begin, int64_t end) { causal_conv1d_bwd_range(g, begin, end); });
  return {grad_x, grad_weight, grad_bias, grad_initial};
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("causal_conv1d_fwd", TORCH_BOX(&suffuse::causal_conv1d_fwd));
  m.impl("causal_conv1d_bwd", TORCH_BOX(&suffuse::causal_conv1d_bwd));
}
