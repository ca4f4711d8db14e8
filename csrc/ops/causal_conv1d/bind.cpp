// causal_conv1d's meeting point with torch: checks, outputs, params. Compiled once for the CPU and
// once for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "ops/causal_conv1d/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/causal_conv1d/cuda/launch.h"
#else
#include "ops/causal_conv1d/cpu/kernel.h"
#endif

namespace suffuse {

#if !defined(SUFFUSE_CUDA)

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

#endif

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
bool channels_adjacent(const Tensor& t) { return t.stride(1) == 1 || t.size(1) <= 1; }

// How the kernels take x, and so all tensors like it.
bool wants_steps(const Tensor& x) { return steps_adjacent(x) || !channels_adjacent(x); }

Tensor swapped(const Tensor& t) { return torch::stable::transpose(t, 1, 2); }

// An output with the steps, or the channels, adjacent.
Tensor empty_rows(const Tensor& like, bool steps) {
  if (steps) return empty(like, like.sizes(), like.scalar_type());
  const int64_t sizes[] = {like.size(0), like.size(2), like.size(1)};
  return swapped(empty(like, shape(sizes), like.scalar_type()));
}

ConvRows rows_of(const Tensor& t, bool steps) {
  return {const_cast<void*>(t.const_data_ptr()), t.stride(0), steps ? t.stride(1) : 1,
          steps ? 1 : t.stride(2)};
}

// Arguments of which the kernels want another type or layout are refused or copied here.
class Call {
 public:
  Call(const char* op, const Tensor& x) : op_(op), x_(x) {
    check_rank(op, "x", x, 3, "[B, D, L]");
    dtype = dtype_of(op, "x", x);
  }

  template <class Params>
  void fill(Params& p, const Tensor& weight, const Optional& bias, bool silu) {
    p.dtype = dtype;
    p.batch = x_.size(0);
    p.channels = x_.size(1);
    p.length = x_.size(2);
    p.silu = silu;
    check_rank(op_, "weight", weight, 2, "[D, W]");
    p.width = weight.size(1);
    const int64_t weights[] = {p.channels, p.width}, biases[] = {p.channels};
    check_shape(op_, "weight", weight, shape(weights), "[D, W] with D of x");
    if (p.width < 1) {
      fail(op_, "weight", "a width of 1 or more in [D, W]", to_string(weight.sizes()));
    }
    p.weight = wide("weight", weight);
    if (bias) {
      check_shape(op_, "bias", *bias, shape(biases), "[D]");
      p.bias = wide("bias", *bias);
    }
  }

  // As it is where that gives rows or columns, else a copy.
  ConvRows rows(const Tensor& t, bool steps) {
    const bool fits = steps ? steps_adjacent(t) : channels_adjacent(t);
    if (fits) return rows_of(t, steps);
    kept_.push_back(steps ? torch::stable::contiguous(t)
                          : swapped(torch::stable::contiguous(swapped(t))));
    return rows_of(kept_.back(), steps);
  }

  ConvRows initial(const Tensor& t, int64_t past) {
    const int64_t sizes[] = {x_.size(0), x_.size(1), past};
    check_shape(op_, "initial_state", t, shape(sizes), "[B, D, W - 1]");
    check_like(t, "initial_state");
    return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
  }

  void check_like(const Tensor& t, const char* name) const {
    check_same_dtype(op_, name, t, "x", x_);
    check_same_device(op_, name, t, "x", x_);
  }

  const int32_t* indices(const char* name, const Tensor& t, Sizes sizes, const char* dims) {
    check_shape(op_, name, t, sizes, dims);
    if (t.scalar_type() != ScalarType::Int) {
      fail(op_, name, "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "x", x_);
    kept_.push_back(torch::stable::contiguous(t));
    return static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }

  DType dtype;

 private:
  const void* wide(const char* name, const Tensor& t) {
    if (t.scalar_type() != wide_type(dtype)) {
      fail(op_, name, "dtype " + dtype_name(wide_type(dtype)), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "x", x_);
    kept_.push_back(torch::stable::contiguous(t));
    return kept_.back().const_data_ptr();
  }

  const char* op_;
  const Tensor& x_;
  std::vector<Tensor> kept_;
};

CausalConv1dParams params_of(Call& call, const Tensor& x, const Tensor& weight,
                             const Optional& bias, const Optional& initial,
                             const Optional& sequence, bool silu) {
  CausalConv1dParams p{};
  call.fill(p, weight, bias, silu);
  p.x = call.rows(x, wants_steps(x));
  if (initial) p.initial = call.initial(*initial, p.width - 1);
  const int64_t steps[] = {p.batch, p.length};
  if (sequence) p.sequence = call.indices("seq_idx", *sequence, shape(steps), "[B, L]");
  return p;
}

#if defined(SUFFUSE_CUDA)

void* stream_of(const Tensor& x) {
  return torch::stable::accelerator::getCurrentStream(x.get_device_index()).nativeHandle();
}

void forward(const CausalConv1dParams& p, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  causal_conv1d_fwd_cuda(p, stream_of(x));
}

void backward(CausalConv1dGradParams& g, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const CausalConv1dParams& p = g.forward;
  g.partial_rows = causal_conv1d_partial_rows(p);
  const int64_t sums[] = {g.partial_rows * p.channels * (p.width + 1)};
  const int64_t slopes[] = {causal_conv1d_grad_z(p)};
  Tensor partials = empty(x, shape(sums), wide_type(p.dtype));
  Tensor grad_z = empty(x, shape(slopes), wide_type(p.dtype));
  g.partials = partials.mutable_data_ptr();
  if (slopes[0] > 0) g.grad_z = grad_z.mutable_data_ptr();
  causal_conv1d_bwd_cuda(g, stream_of(x));
}

void update(const CausalConv1dUpdateParams& p, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  causal_conv1d_update_cuda(p, stream_of(x));
}

#else

// Units of a parallel loop that are worth a task of their own.
int64_t grain(int64_t units, int64_t multiply_adds) {
  return 200000 * units / (multiply_adds + 1) + 1;
}

void forward(const CausalConv1dParams& p, const Tensor&) {
  const int64_t units = conv_forward_units(p), work = p.batch * p.channels * p.length * p.width;
  torch::stable::parallel_for(0, units, grain(units, work), [&](int64_t begin, int64_t end) {
    causal_conv1d_fwd_range(p, begin, end);
  });
}

void backward(CausalConv1dGradParams& g, const Tensor& x) {
  const CausalConv1dParams& p = g.forward;
  g.partial_rows = p.batch;
  const int64_t sums[] = {p.batch, p.channels, p.width + 1};
  Tensor partials = empty(x, shape(sums), wide_type(p.dtype));
  g.partials = partials.mutable_data_ptr();
  const int64_t units = conv_backward_units(p),
                work = 3 * p.batch * p.channels * p.length * p.width;
  torch::stable::parallel_for(0, units, grain(units, work), [&](int64_t begin, int64_t end) {
    causal_conv1d_bwd_range(g, begin, end);
  });
  causal_conv1d_totals(g, 0, p.channels);
}

void update(const CausalConv1dUpdateParams& p, const Tensor&) {
  const int64_t units = conv_update_units(p);
  const int64_t work = p.batch * p.channels * (p.state_length + p.length * p.width);
  torch::stable::parallel_for(0, units, grain(units, work), [&](int64_t begin, int64_t end) {
    causal_conv1d_update_range(p, begin, end);
  });
}

#endif

Tensor causal_conv1d_fwd(Tensor x, Tensor weight, Optional bias, Optional initial,
                         Optional sequence, bool silu) {
  Call call("causal_conv1d", x);
  CausalConv1dParams p = params_of(call, x, weight, bias, initial, sequence, silu);
  Tensor out = empty_rows(x, wants_steps(x));
  p.out = rows_of(out, wants_steps(x));
  forward(p, x);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> causal_conv1d_bwd(Tensor grad_out, Tensor x,
                                                             Tensor weight, Optional bias,
                                                             Optional initial, Optional sequence,
                                                             bool silu) {
  constexpr char kOp[] = "causal_conv1d backward";
  Call call(kOp, x);
  CausalConv1dGradParams g{};
  CausalConv1dParams& p = g.forward;
  p = params_of(call, x, weight, bias, initial, sequence, silu);
  check_shape(kOp, "grad_out", grad_out, x.sizes(), "like x");
  call.check_like(grad_out, "grad_out");
  g.grad_out = call.rows(grad_out, wants_steps(x));
  Tensor grad_x = empty_rows(x, wants_steps(x));
  const int64_t states[] = {p.batch, p.channels, initial ? p.width - 1 : 0};
  const int64_t weights[] = {p.channels, p.width}, biases[] = {p.channels};
  Tensor grad_weight = empty(x, shape(weights), wide_type(p.dtype));
  Tensor grad_bias = empty(x, shape(biases), wide_type(p.dtype));
  Tensor grad_initial = empty(x, shape(states), x.scalar_type());
  g.grad_x = rows_of(grad_x, wants_steps(x));
  if (initial) g.grad_initial = rows_of(grad_initial, true);
  g.grad_weight = grad_weight.mutable_data_ptr();
  g.grad_bias = grad_bias.mutable_data_ptr();
  backward(g, x);
  return {grad_x, grad_weight, grad_bias, grad_initial};
}

// A state of which channels or steps are adjacent: it is updated in place.
ConvRows state_of(const Call& call, const char* op, const Tensor& state,
                  const CausalConv1dUpdateParams& p) {
  check_rank(op, "conv_state", state, 3, "[B, D, S]");
  const int64_t batch = p.slots ? state.size(0) : p.batch, steps = state.size(2);
  const int64_t sizes[] = {batch, p.channels, steps < p.width - 1 ? p.width - 1 : steps};
  check_shape(op, "conv_state", state, shape(sizes), "[B, D, S >= W - 1]");
  call.check_like(state, "conv_state");
  if (!steps_adjacent(state) && !channels_adjacent(state)) {
    fail(op, "conv_state", "stride 1 of channels or steps",
         "strides " + to_string(state.strides()));
  }
  ConvRows rows = rows_of(state, steps_adjacent(state));
  rows.data = state.mutable_data_ptr();
  return rows;
}

Tensor causal_conv1d_update(Tensor x, Tensor conv_state, Tensor weight, Optional bias,
                            Optional cache_seqlens, Optional conv_state_indices, bool silu) {
  constexpr char kOp[] = "causal_conv1d_update";
  Call call(kOp, x);
  CausalConv1dUpdateParams p{};
  call.fill(p, weight, bias, silu);
  const int64_t entries[] = {p.batch};
  if (cache_seqlens) {
    p.positions = call.indices("cache_seqlens", *cache_seqlens, shape(entries), "[B]");
  }
  if (conv_state_indices) {
    p.slots = call.indices("conv_state_indices", *conv_state_indices, shape(entries), "[B]");
  }
  p.state = state_of(call, kOp, conv_state, p);
  p.state_length = conv_state.size(2);
  for (int64_t b = 0; p.slots && x.is_cpu() && b < p.batch; b++) {
    if (p.slots[b] >= conv_state.size(0)) {
      fail(kOp, "conv_state_indices", "less than " + std::to_string(conv_state.size(0)),
           std::to_string(p.slots[b]));
    }
  }
  Tensor out = empty_rows(x, wants_steps(x));
  p.x = call.rows(x, wants_steps(x));
  p.out = rows_of(out, wants_steps(x));
  // A single step is a column: the distance of steps has no meaning, 1 would make it a row.
  if (p.length == 1 && p.x.channel == 1) p.x.time = 0;
  if (p.length == 1) p.out.time = 0;
  if (p.batch * p.channels * p.length > 0) update(p, x);
  return out;
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("causal_conv1d_fwd", TORCH_BOX(&suffuse::causal_conv1d_fwd));
  m.impl("causal_conv1d_bwd", TORCH_BOX(&suffuse::causal_conv1d_bwd));
  m.impl("causal_conv1d_update", TORCH_BOX(&suffuse::causal_conv1d_update));
}
