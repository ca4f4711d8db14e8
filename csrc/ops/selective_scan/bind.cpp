// selective_scan's meeting point with torch: checks, outputs, workspace, params.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

namespace suffuse {

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

namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

constexpr char kForward[] = "selective_scan", kBackward[] = "selective_scan backward";

template <size_t n>
Sizes shape(const int64_t (&sizes)[n]) {
  return Sizes(sizes, n);
}

ScalarType wide_type(DType dtype) {
  return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

struct Inputs {
  const Tensor &u, &delta, &a, &b, &c;
  const Optional &skip, &z, &bias, &initial, &sequence;
};

// Checks and fills the params; keeps the copies of what is not laid out as the kernels read it.
class Call {
 public:
  Call(const char* op, const Inputs& in, bool softplus, bool reverse) : op_(op) {
    check_rank(op, "u", in.u, 3, "[B, D, L]");
    p.dtype = dtype_of(op, "u", in.u);
    p.batch = in.u.size(0);
    p.channels = in.u.size(1);
    p.length = in.u.size(2);
    p.softplus = softplus;
    p.reverse = reverse;
    p.u = rows("u", in.u);
    p.delta = rows_like_u("delta", in.delta, in.u);
    if (in.z) p.z = rows_like_u("z", *in.z, in.u);
    check_rank(op, "A", in.a, 2, "[D, N]");
    p.states = in.a.size(1);
    check_shape(op, "A", in.a, shape({p.channels, p.states}), "[D, N]");
    p.a = wide("A", in.a, in.u);
    p.groups = 1;
    if (in.b.dim() == 4) p.groups = in.b.size(1);
    if (in.b.dim() != 4 && in.c.dim() == 4) p.groups = in.c.size(1);
    if (p.groups < 1 || p.channels % p.groups) {
      fail(op, "B", "groups G that divide the " + std::to_string(p.channels) + " channels of u",
           "G = " + std::to_string(p.groups));
    }
    p.b = projection("B", in.b, in.u);
    p.c = projection("C", in.c, in.u);
    p.skip = channels("D", in.skip, in.u);
    p.bias = channels("delta_bias", in.bias, in.u);
    if (in.initial) {
      check_shape(op, "initial_state", *in.initial, shape({p.batch, p.channels, p.states}),
                  "[B, D, N]");
      p.initial = wide("initial_state", *in.initial, in.u);
    }
    if (in.sequence) p.sequence = sequence(*in.sequence, in.u);
    // States saved for the backward pass then take at most four times the memory of u.
    p.chunk = p.states <= 16 ? kScanSteps : p.states <= 64 ? 2 * kScanSteps : 4 * kScanSteps;
  }

  ScanRows rows_like_u(const char* name, const Tensor& t, const Tensor& u) {
    check_shape(op_, name, t, u.sizes(), "like u");
    check_same_dtype(op_, name, t, "u", u);
    check_same_device(op_, name, t, "u", u);
    return rows(name, t);
  }

  // Contiguous, in the arithmetic's type.
  const void* wide(const char* name, const Tensor& t, const Tensor& u) {
    const ScalarType type = wide_type(p.dtype);
    if (t.scalar_type() != type) {
      fail(op_, name, "dtype " + dtype_name(type), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "u", u);
    kept_.push_back(torch::stable::contiguous(t));
    return kept_.back().const_data_ptr();
  }

  SelectiveScanParams p{};

 private:
  // Channels or steps lie next to each other.
  ScanRows rows(const char*, const Tensor& t) {
    const bool steps = t.stride(2) == 1 || t.size(2) <= 1;
    const bool channels = t.stride(1) == 1 || t.size(1) <= 1;
    kept_.push_back(steps || channels ? t : torch::stable::contiguous(t));
    const Tensor& kept = kept_.back();
    const int64_t time = steps || !channels ? 1 : kept.stride(2);
    const int64_t channel = time == 1 ? kept.stride(1) : 1;
    return {kept.const_data_ptr(), kept.stride(0), channel, time};
  }

  ScanProjection projection(const char* name, const Tensor& t, const Tensor& u) {
    if (t.dim() == 2) {
      check_shape(op_, name, t, shape({p.channels, p.states}), "[D, N]");
      const void* data = wide(name, t, u);
      return {data, 0, 0, 0, 0, const_cast<void*>(data), false};
    }
    check_rank(op_, name, t, 4, "[D, N] or [B, G, N, L]");
    check_shape(op_, name, t, shape({p.batch, p.groups, p.states, p.length}),
                "[B, G, N, L] with B and L of u, N of A and one G for B and C");
    check_same_dtype(op_, name, t, "u", u);
    check_same_device(op_, name, t, "u", u);
    const bool readable = t.stride(3) == 1 || t.stride(2) == 1;
    kept_.push_back(readable ? t : torch::stable::contiguous(t));
    const Tensor source = kept_.back();
    kept_.push_back(empty(u, shape({p.batch, p.groups, p.length, p.states}), wide_type(p.dtype)));
    return {source.const_data_ptr(),
            source.stride(0),
            source.stride(1),
            source.stride(2),
            source.stride(3),
            kept_.back().mutable_data_ptr(),
            true};
  }

  const void* channels(const char* name, const Optional& t, const Tensor& u) {
    if (!t) return nullptr;
    check_shape(op_, name, *t, shape({p.channels}), "[D]");
    return wide(name, *t, u);
  }

  const int32_t* sequence(const Tensor& t, const Tensor& u) {
    check_shape(op_, "seq_idx", t, shape({p.batch, p.length}), "[B, L]");
    if (t.scalar_type() != ScalarType::Int) {
      fail(op_, "seq_idx", "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(op_, "seq_idx", t, "u", u);
    kept_.push_back(torch::stable::contiguous(t));
    return static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }

  const char* op_;
  std::vector<Tensor> kept_;
};

void pack(const SelectiveScanParams& p) {
  if (!p.b.varying && !p.c.varying) return;
  const int64_t tiles = (p.length + kScanSteps - 1) / kScanSteps;
  torch::stable::parallel_for(0, p.batch * p.groups * tiles, 64, [&](int64_t begin, int64_t end) {
    selective_scan_pack_range(p, begin, end);
  });
}

// Units of a parallel loop that are worth a task of their own, each of so many state updates.
int64_t grain(int64_t updates) { return 200000 / (updates + 1) + 1; }

std::tuple<Tensor, Tensor, Tensor, Tensor> selective_scan_fwd(
    Tensor u, Tensor delta, Tensor a, Tensor b, Tensor c, Optional skip, Optional z, Optional bias,
    Optional initial, Optional sequence, bool softplus, bool reverse, bool save) {
  Call call(kForward, {u, delta, a, b, c, skip, z, bias, initial, sequence}, softplus, reverse);
  SelectiveScanParams& p = call.p;
  const ScalarType type = u.scalar_type(), wide = wide_type(p.dtype);
  const int64_t none[] = {0};
  Tensor out = empty(u, u.sizes(), type);
  Tensor last = empty(u, shape({p.batch, p.channels, p.states}), wide);
  const int64_t states[] = {p.batch, scan_chunks(p), scan_blocks(p), p.states, kScanLanes};
  Tensor saved = empty(u, save ? shape(states) : Sizes(none, 1), wide);
  Tensor ungated = empty(u, save && z ? u.sizes() : Sizes(none, 1), type);
  p.out = out.mutable_data_ptr();
  p.last = last.mutable_data_ptr();
  if (save) p.chunk_states = saved.mutable_data_ptr();
  if (save && z) p.ungated = ungated.mutable_data_ptr();
  pack(p);
  torch::stable::parallel_for(
      0, p.batch * scan_blocks(p), grain(kScanLanes * p.length * p.states),
      [&](int64_t begin, int64_t end) { selective_scan_fwd_range(p, begin, end); });
  return {out, last, saved, ungated};
}

// Enough units for many cores where the batch and the groups are few; by shape alone, for the order
// of addition hangs on it.
int64_t parts_of_group(const SelectiveScanParams& p) {
  constexpr int64_t kUnits = 8;
  const int64_t pairs = std::max<int64_t>(1, p.batch * p.groups);
  return std::clamp<int64_t>(kUnits / pairs, 1, std::max<int64_t>(1, scan_blocks_of_group(p)));
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
  if (grad_last) {
    check_shape(kBackward, "grad_last", *grad_last,
                shape({call.p.batch, call.p.channels, call.p.states}), "[B, D, N]");
    g.grad_last = call.wide("grad_last", *grad_last, u);
  }
  SelectiveScanParams& p = g.forward = call.p;
  const int64_t saved[] = {p.batch, scan_chunks(p), scan_blocks(p), p.states, kScanLanes};
  check_shape(kBackward, "states", states, shape(saved), "as saved by the forward pass");
  call.wide("states", states, u);
  p.chunk_states = const_cast<void*>(states.const_data_ptr());
  if (z) {
    check_shape(kBackward, "ungated", ungated, u.sizes(), "like u");
    check_same_dtype(kBackward, "ungated", ungated, "u", u);
    p.ungated = const_cast<void*>(ungated.const_data_ptr());
  }
  g.parts = parts_of_group(p);
  const ScalarType type = u.scalar_type(), wide = wide_type(p.dtype);
  const int64_t none[] = {0};
  Tensor grad_u = empty(u, u.sizes(), type), grad_delta = empty(u, u.sizes(), type);
  Tensor grad_z = empty(u, z ? u.sizes() : Sizes(none, 1), type);
  const int64_t matrix[] = {p.batch, p.channels, p.states}, row[] = {p.batch, p.channels};
  const int64_t projected[] = {p.batch, p.groups, g.parts, p.length, p.states};
  Tensor grad_a = empty(u, shape(matrix), wide), grad_initial = empty(u, shape(matrix), wide);
  Tensor grad_skip = empty(u, shape(row), wide), grad_bias = empty(u, shape(row), wide);
  Tensor grad_b = empty(u, p.b.varying ? shape(projected) : shape(matrix), wide);
  Tensor grad_c = empty(u, p.c.varying ? shape(projected) : shape(matrix), wide);
  g.grad_u = grad_u.mutable_data_ptr();
  g.grad_delta = grad_delta.mutable_data_ptr();
  if (z) g.grad_z = grad_z.mutable_data_ptr();
  g.grad_a = grad_a.mutable_data_ptr();
  g.grad_initial = grad_initial.mutable_data_ptr();
  g.grad_skip = grad_skip.mutable_data_ptr();
  g.grad_bias = grad_bias.mutable_data_ptr();
  g.grad_b = grad_b.mutable_data_ptr();
  g.grad_c = grad_c.mutable_data_ptr();
  pack(p);
  torch::stable::parallel_for(0, p.batch * p.groups * g.parts, 1, [&](int64_t begin, int64_t end) {
    selective_scan_bwd_range(g, begin, end);
  });
  return {grad_u, grad_delta, grad_a, grad_b, grad_c, grad_skip, grad_z, grad_bias, grad_initial};
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("selective_scan_fwd", TORCH_BOX(&suffuse::selective_scan_fwd));
  m.impl("selective_scan_bwd", TORCH_BOX(&suffuse::selective_scan_bwd));
}
