// The arguments of selective_scan, checked, as params. Part of bind.cpp, which has included torch.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/selective_scan/params.h"
#if !defined(SUFFUSE_CUDA)
#include "ops/selective_scan/cpu/panels.h"
#endif

namespace suffuse {
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
    p.u = rows("u", in.u);
    p.delta = rows_like_u("delta", in.delta, in.u);
    if (in.z) p.z = rows_like_u("z", *in.z, in.u);
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
#if defined(SUFFUSE_CUDA)
    p.chunk = kScanSteps;
    if (p.dtype == DType::f64) fail(op, "u", "another dtype than float64 on CUDA", "float64");
    if (p.states > kMostScanStates) {
      fail(op, "A", "at most " + std::to_string(kMostScanStates) + " states on CUDA",
           std::to_string(p.states));
    }
#else
    // States saved for the backward pass then take at most four times the memory of u.
    p.chunk = scan_takes_panels(p) ? kScanPanel
              : p.states <= 16     ? kScanSteps
              : p.states <= 64     ? 2 * kScanSteps
                                   : 4 * kScanSteps;
#endif
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
  // Channels or steps lie next to each other; steps, where time is on the lanes.
  ScanRows rows(const char*, const Tensor& t) {
    const bool steps = t.stride(2) == 1 || t.size(2) <= 1;
    const bool channels = (t.stride(1) == 1 || t.size(1) <= 1) && !steps_on_lanes();
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
#if defined(SUFFUSE_CUDA)
    void* const packed = nullptr;
#else
    void* packed = nullptr;
    if (!steps_on_lanes()) {
      kept_.push_back(empty(u, shape({p.batch, p.groups, p.length, p.states}), wide_type(p.dtype)));
      packed = kept_.back().mutable_data_ptr();
    }
#endif
    return {source.const_data_ptr(),
            source.stride(0),
            source.stride(1),
            source.stride(2),
            source.stride(3),
            packed,
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

  bool steps_on_lanes() const {
#if defined(SUFFUSE_CUDA)
    return false;
#else
    return scan_takes_panels(p);
#endif
  }

  const char* op_;
  std::vector<Tensor> kept_;
};

}  // namespace
}  // namespace suffuse
