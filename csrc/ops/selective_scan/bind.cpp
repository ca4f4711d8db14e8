// selective_scan's meeting point with torch: outputs, workspace, what runs. Compiled once for the
// CPU and once for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <tuple>

#include "torch/checks.h"
#include "torch/empty.h"
// after torch
#include "ops/selective_scan/arguments-inl.h"
#include "ops/selective_scan/update-inl.h"
#if !defined(SUFFUSE_CUDA)
#include "ops/selective_scan/run_cpu-inl.h"
#endif

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/selective_scan/cuda/launch.h"
#else
#include "ops/selective_scan/cpu/kernel.h"
#endif

namespace suffuse {

#if !defined(SUFFUSE_CUDA)
void* selective_scan_scratch(int64_t bytes) {
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
      fail("selective_scan", "scratch", std::to_string(bytes) + " bytes of memory", "none");
    }
  }
  return memory.get();
}
#endif

namespace {

constexpr char kForward[] = "selective_scan", kBackward[] = "selective_scan backward";

#if defined(SUFFUSE_CUDA)

// Whether the backward pass needs the result before the gate.
constexpr bool kKeepsUngated = true;

std::vector<int64_t> saved_shape(const SelectiveScanParams& p) {
  return {p.batch, scan_windows(p), p.channels, p.states};
}

void run_update(const StateUpdateParams& p, const Tensor& x, const Tensor&) {
  if (p.dtype == DType::f64) {
    fail("selective_state_update", "x", "another dtype than float64 on CUDA", "float64");
  }
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto stream = torch::stable::accelerator::getCurrentStream(x.get_device_index());
  selective_state_update_cuda(p, stream.nativeHandle());
}

template <class Run>
void run_on_stream(SelectiveScanParams& p, const Tensor& u, int64_t floats, Run&& run) {
  const torch::stable::accelerator::DeviceGuard guard(u.get_device_index());
  const int64_t size[] = {floats};
  Tensor workspace = empty(u, shape(size), ScalarType::Float);
  p.workspace = workspace.mutable_data_ptr();
  run(torch::stable::accelerator::getCurrentStream(u.get_device_index()).nativeHandle());
}

void run_forward(SelectiveScanParams& p, const Tensor& u) {
  run_on_stream(p, u, selective_scan_fwd_floats(p),
                [&](void* stream) { selective_scan_fwd_cuda(p, stream); });
}

void run_backward(SelectiveScanGradParams& g, const Tensor& u) {
  run_on_stream(g.forward, u, selective_scan_bwd_floats(g.forward),
                [&](void* stream) { selective_scan_bwd_cuda(g, stream); });
}

#endif

// Room for the states that the backward pass starts from.
Tensor saved_states(const SelectiveScanParams& p, const Tensor& u, bool save) {
  const std::vector<int64_t> sizes = save ? saved_shape(p) : std::vector<int64_t>{0};
  return empty(u, Sizes(sizes.data(), sizes.size()), wide_type(p.dtype));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> selective_scan_fwd(
    Tensor u, Tensor delta, Tensor a, Tensor b, Tensor c, Optional skip, Optional z, Optional bias,
    Optional initial, Optional sequence, bool softplus, bool reverse, bool save) {
  Call call(kForward, {u, delta, a, b, c, skip, z, bias, initial, sequence}, softplus, reverse);
  SelectiveScanParams& p = call.p;
  const ScalarType type = u.scalar_type(), wide = wide_type(p.dtype);
  const int64_t none[] = {0};
  Tensor out = empty(u, u.sizes(), type);
  Tensor last = empty(u, shape({p.batch, p.channels, p.states}), wide);
  Tensor saved = saved_states(p, u, save);
  const bool keep = save && z && kKeepsUngated;
  Tensor ungated = empty(u, keep ? u.sizes() : shape(none), type);
  p.out = out.mutable_data_ptr();
  p.last = last.mutable_data_ptr();
  if (save) p.chunk_states = saved.mutable_data_ptr();
  if (keep) p.ungated = ungated.mutable_data_ptr();
  run_forward(p, u);
  return {out, last, saved, ungated};
}

using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients selective_scan_bwd(Tensor grad_out, Optional grad_last, Tensor u, Tensor delta, Tensor a,
                             Tensor b, Tensor c, Optional skip, Optional z, Optional bias,
                             Optional sequence, Tensor states, Tensor ungated, bool softplus,
                             bool reverse) {
  const Optional initial;
  Call call(kBackward, {u, delta, a, b, c, skip, z, bias, initial, sequence}, softplus, reverse);
  SelectiveScanGradParams g{};
  g.grad_out = call.rows_like_u("grad_out", grad_out, u);
  const int64_t matrix[] = {call.p.batch, call.p.channels, call.p.states};
  if (grad_last) {
    check_shape(kBackward, "grad_last", *grad_last, shape(matrix), "[B, D, N]");
    g.grad_last = call.wide("grad_last", *grad_last, u);
  }
  SelectiveScanParams& p = g.forward = call.p;
  const std::vector<int64_t> saved = saved_shape(p);
  check_shape(kBackward, "states", states, Sizes(saved.data(), saved.size()),
              "as saved by the forward pass");
  p.chunk_states = const_cast<void*>(call.wide("states", states, u));
  if (z && kKeepsUngated) {
    check_shape(kBackward, "ungated", ungated, u.sizes(), "like u");
    check_same_dtype(kBackward, "ungated", ungated, "u", u);
    p.ungated = const_cast<void*>(ungated.const_data_ptr());
  }
  const ScalarType type = u.scalar_type(), wide = wide_type(p.dtype);
  const int64_t none[] = {0}, row[] = {p.channels};
  Tensor grad_u = empty(u, u.sizes(), type), grad_delta = empty(u, u.sizes(), type);
  Tensor grad_z = empty(u, z ? u.sizes() : shape(none), type);
  Tensor grad_a = empty(u, a.sizes(), wide), grad_initial = empty(u, shape(matrix), wide);
  Tensor grad_b = empty(u, b.sizes(), b.scalar_type()),
         grad_c = empty(u, c.sizes(), c.scalar_type());
  Tensor grad_skip = empty(u, shape(row), wide), grad_bias = empty(u, shape(row), wide);
  g.grad_u = grad_u.mutable_data_ptr();
  g.grad_delta = grad_delta.mutable_data_ptr();
  if (z) g.grad_z = grad_z.mutable_data_ptr();
  g.grad_a = grad_a.mutable_data_ptr();
  g.grad_initial = grad_initial.mutable_data_ptr();
  g.grad_skip = grad_skip.mutable_data_ptr();
  g.grad_bias = grad_bias.mutable_data_ptr();
  g.grad_b = grad_b.mutable_data_ptr();
  g.grad_c = grad_c.mutable_data_ptr();
  run_backward(g, u);
  return {grad_u, grad_delta, grad_a, grad_b, grad_c, grad_skip, grad_z, grad_bias, grad_initial};
}

// Moves `state` on in place.
Tensor selective_state_update(Tensor state, Tensor x, Tensor dt, Tensor a, Tensor b, Tensor c,
                              Optional skip, Optional z, Optional bias, bool softplus,
                              Optional indices) {
  UpdateCall call({state, x, dt, a, b, c, skip, z, bias, indices}, softplus);
  Tensor out = empty(x, x.sizes(), x.scalar_type());
  call.p.out = out.mutable_data_ptr();
  if (x.numel() > 0) run_update(call.p, x, state);
  return out;
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("selective_scan_fwd", TORCH_BOX(&suffuse::selective_scan_fwd));
  m.impl("selective_scan_bwd", TORCH_BOX(&suffuse::selective_scan_bwd));
  m.impl("selective_state_update", TORCH_BOX(&suffuse::selective_state_update));
}
