// The arguments of selective_state_update, checked, as params. Part of bind.cpp, which has included
// torch.
#pragma once

#include "ops/selective_scan/arguments-inl.h"
#include "ops/selective_scan/update_params.h"

namespace suffuse {
namespace {

struct UpdateInputs {
  const Tensor &state, &x, &dt, &a, &b, &c;
  const Optional &skip, &z, &bias, &indices;
};

// Shapes with heads, [B, H, P]; without, a channel is a head of one place.
class UpdateCall {
 public:
  UpdateCall(const UpdateInputs& in, bool softplus) : with_heads_(in.x.dim() == 3) {
    const Tensor& x = in.x;
    if (x.dim() != 2 && x.dim() != 3) {
      fail(kOp, "x", "shape [B, D] or [B, H, P]", to_string(x.sizes()));
    }
    p.dtype = dtype_of(kOp, "x", x);
    p.batch = x.size(0);
    p.heads = x.size(1);
    p.places = with_heads_ ? x.size(2) : 1;
    p.softplus = softplus;
    set_state(in);
    p.x = rows("x", x, x);
    p.dt = rows("dt", in.dt, x);
    if (in.z) p.z = rows("z", *in.z, x);
    if (in.skip) p.skip = channels("D", *in.skip, x);
    if (in.bias) p.bias = channels("dt_bias", *in.bias, x);
    set_rates(in.a, x);
    p.groups = in.b.dim() == 3 ? in.b.size(1) : 1;
    if (p.groups < 1 || p.heads % p.groups) {
      fail(kOp, "B",
           std::string("groups G that divide the ") + std::to_string(p.heads) +
               (with_heads_ ? " heads of x" : " channels of x"),
           "G = " + std::to_string(p.groups));
    }
    p.b = projection("B", in.b, x);
    p.c = projection("C", in.c, x);
    if (in.indices) set_indices(*in.indices, x);
  }

  StateUpdateParams p{};

 private:
  static constexpr char kOp[] = "selective_state_update";

  // [first, D] or [first, H, P], with more behind it.
  std::vector<int64_t> sizes(std::vector<int64_t> first, std::vector<int64_t> behind) const {
    first.push_back(p.heads);
    if (with_heads_) first.push_back(p.places);
    first.insert(first.end(), behind.begin(), behind.end());
    return first;
  }
  void check(const char* name, const Tensor& t, const std::vector<int64_t>& expected,
             const char* why) const {
    check_shape(kOp, name, t, Sizes(expected.data(), expected.size()), why);
  }

  void set_state(const UpdateInputs& in) {
    const Tensor& state = in.state;
    const int64_t rank = with_heads_ ? 4 : 3;
    check_rank(kOp, "state", state, rank, with_heads_ ? "[B, H, P, N]" : "[B, D, N]");
    p.states = state.size(rank - 1);
    check("state", state, sizes({in.indices ? state.size(0) : p.batch}, {p.states}),
          "with B and D, or H and P, of x");
    check_same_device(kOp, "state", state, "x", in.x);
    p.state_dtype = dtype_of(kOp, "state", state);
    if ((p.state_dtype == DType::f64) != (p.dtype == DType::f64)) {
      fail(kOp, "state", "float64 with a float64 x, another dtype with another",
           dtype_name(state.scalar_type()));
    }
    if (state.stride(rank - 1) != 1 && p.states > 1) {
      fail(kOp, "state", "adjacent states: a stride of 1 in the last dimension",
           std::to_string(state.stride(rank - 1)));
    }
    p.state = state.mutable_data_ptr();
    p.state_slot = state.stride(0);
    p.state_head = state.stride(1);
    p.state_place = with_heads_ ? state.stride(2) : 0;
  }

  StepRows rows(const char* name, const Tensor& t, const Tensor& x) const {
    check(name, t, sizes({p.batch}, {}), "like x");
    check_same_dtype(kOp, name, t, "x", x);
    check_same_device(kOp, name, t, "x", x);
    return {t.const_data_ptr(), t.stride(0), t.stride(1), with_heads_ ? t.stride(2) : 0};
  }

  void check_wide(const char* name, const Tensor& t, const Tensor& x) const {
    const ScalarType type = wide_type(p.dtype);
    if (t.scalar_type() != type) {
      fail(kOp, name, "dtype " + dtype_name(type), dtype_name(t.scalar_type()));
    }
    check_same_device(kOp, name, t, "x", x);
  }

  StepChannels channels(const char* name, const Tensor& t, const Tensor& x) const {
    check(name, t, sizes({}, {}), with_heads_ ? "[H, P]" : "[D]");
    check_wide(name, t, x);
    return {t.const_data_ptr(), t.stride(0), with_heads_ ? t.stride(1) : 0};
  }

  void set_rates(const Tensor& a, const Tensor& x) {
    check("A", a, sizes({}, {p.states}), with_heads_ ? "[H, P, N]" : "[D, N]");
    check_wide("A", a, x);
    const int64_t last = a.dim() - 1;
    const bool readable = p.states <= 1 || a.stride(last) <= 1;
    kept_.push_back(readable ? a : torch::stable::contiguous(a));
    const Tensor& kept = kept_.back();
    p.a = {kept.const_data_ptr(), kept.stride(0), with_heads_ ? kept.stride(1) : 0};
    p.a_state = p.states <= 1 ? 1 : kept.stride(last);
  }

  StepProjection projection(const char* name, const Tensor& t, const Tensor& x) {
    const bool groups = t.dim() == 3;
    if (groups) {
      check(name, t, {p.batch, p.groups, p.states},
            "with B of x, N of state and one G for B and C");
    } else {
      check(name, t, {p.batch, p.states}, "[B, N] or [B, G, N] with B of x and N of state");
    }
    if (!groups && p.groups != 1) {
      fail(kOp, name, "shape [B, G, N] like B", to_string(t.sizes()));
    }
    check_same_dtype(kOp, name, t, "x", x);
    check_same_device(kOp, name, t, "x", x);
    const bool readable = p.states <= 1 || t.stride(t.dim() - 1) == 1;
    kept_.push_back(readable ? t : torch::stable::contiguous(t));
    const Tensor& kept = kept_.back();
    return {kept.const_data_ptr(), kept.stride(0), groups ? kept.stride(1) : 0};
  }

  void set_indices(const Tensor& t, const Tensor& x) {
    check("state_batch_indices", t, {p.batch}, "[B]");
    if (t.scalar_type() != ScalarType::Int) {
      fail(kOp, "state_batch_indices", "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(kOp, "state_batch_indices", t, "x", x);
    kept_.push_back(torch::stable::contiguous(t));
    p.indices = static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }

  const bool with_heads_;
  std::vector<Tensor> kept_;
};

}  // namespace
}  // namespace suffuse
