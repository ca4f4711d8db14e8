// qk_norm's meeting point with torch: checks, outputs, params. Compiled once for the CPU and once
// for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/qk_norm/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/qk_norm/cuda/launch.h"
#else
#include "ops/qk_norm/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

constexpr const char* kNames[] = {"q", "k"};

bool columns_adjacent(const Tensor& t) {
  return t.stride(t.dim() - 1) == 1 || t.size(t.dim() - 1) <= 1;
}

HeadRows rows_of(const Tensor& t) {
  return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
}

// The arguments of one call, checked; what had to be copied lives as long as this.
class Call {
 public:
  Call(const char* op, const Tensor& q, const Tensor& k, double eps, bool interleaved)
      : op_(op), q_(q) {
    check_rank(op, "q", q, 4, "[B, T, H, D]");
    check_rank(op, "k", k, 4, "[B, T, G, D]");
    p.dtype = dtype_of(op, "q", q);
    wide = p.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
    check_same_dtype(op, "k", k, "q", q);
    check_same_device(op, "k", k, "q", q);
    const int64_t expected[] = {q.size(0), q.size(1), k.size(2), q.size(3)};
    check_shape(op, "k", k, Sizes(expected, 4), "with B, T and D of q");
    p.batch = q.size(0);
    p.length = q.size(1);
    p.columns = q.size(3);
    p.eps = eps;
    p.interleaved = interleaved;
    const Tensor* both[] = {&q, &k};
    for (int i = 0; i < QkNormParams::kSides; i++) {
      p.sides[i].x = rows(*both[i]);
      p.sides[i].heads = both[i]->size(2);
    }
  }

  void weight(int side, const char* name, const Optional& weight) {
    if (!weight) return;
    const int64_t sizes[] = {p.columns};
    check_shape(op_, name, *weight, Sizes(sizes, 1), "[D]");
    p.sides[side].weight = number(name, *weight);
  }

  void tables(const Optional& cos, const Optional& sin) {
    if (!cos && !sin) return;
    if (!cos || !sin) fail(op_, cos ? "sin" : "cos", "a tensor with the other one", "None");
    const bool own = cos->dim() == 3;  // each batch entry has its own
    if (!own) check_rank(op_, "cos", *cos, 2, "[S, R/2] or [B, S, R/2]");
    check_shape(op_, "sin", *sin, cos->sizes(), "like cos");
    if (own && cos->size(0) != p.batch && cos->size(0) != 1) {
      fail(op_, "cos", "[B, S, R/2] with B = " + std::to_string(p.batch), to_string(cos->sizes()));
    }
    if (cos->size(own ? 1 : 0) < p.length) {
      fail(op_, "cos", "S of at least " + std::to_string(p.length) + ", the length of q",
           to_string(cos->sizes()));
    }
    p.rotated = 2 * cos->size(own ? 2 : 1);
    if (p.rotated > p.columns) {
      fail(op_, "cos", "R/2 of at most " + std::to_string(p.columns / 2) + ", half of D",
           std::to_string(p.rotated / 2));
    }
    p.cos = number("cos", *cos);
    p.table_row = kept_.back().stride(own ? 1 : 0);
    p.table_batch = own && cos->size(0) > 1 ? kept_.back().stride(0) : 0;
    p.sin = number("sin", *sin);
  }

  // As it is where its columns are adjacent, else a copy.
  HeadRows rows(const Tensor& t) {
    kept_.push_back(columns_adjacent(t) ? t : torch::stable::contiguous(t));
    return rows_of(kept_.back());
  }

  QkNormParams p{};
  ScalarType wide;  // of weights, tables and sums

 private:
  // Contiguous numbers in the arithmetic's type.
  const void* number(const char* name, const Tensor& t) {
    if (t.scalar_type() != wide) {
      fail(op_, name, "dtype " + dtype_name(wide), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "q", q_);
    kept_.push_back(torch::stable::contiguous(t));
    return kept_.back().const_data_ptr();
  }

  const char* op_;
  const Tensor& q_;
  std::vector<Tensor> kept_;
};

int64_t elements(const QkNormParams& p) {
  return p.batch * p.length * (p.sides[0].heads + p.sides[1].heads) * p.columns;
}

#if defined(SUFFUSE_CUDA)

void* stream_of(const Tensor& t) {
  return torch::stable::accelerator::getCurrentStream(t.get_device_index()).nativeHandle();
}

void forward(const QkNormParams& p, const Tensor& q) {
  if (elements(p) == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  qk_norm_fwd_cuda(p, stream_of(q));
}

void backward(QkNormGradParams& g, const Tensor& q, ScalarType wide) {
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  const int64_t sizes[] = {qk_norm_partials(g)};
  Tensor partials = empty(q, Sizes(sizes, 1), wide);
  g.partials = partials.mutable_data_ptr();
  qk_norm_bwd_cuda(g, stream_of(q));
}

#else

void forward(const QkNormParams& p, const Tensor&) {
  if (elements(p) == 0) return;
  torch::stable::parallel_for(0, p.batch * p.length, qk_norm_piece(p),
                              [&](int64_t b, int64_t e) { qk_norm_fwd_range(p, b, e); });
}

void backward(QkNormGradParams& g, const Tensor& q, ScalarType wide) {
  const int64_t pieces = qk_norm_pieces(g.forward);
  const int64_t sizes[] = {pieces * QkNormParams::kSides * g.forward.columns};
  Tensor partials = empty(q, Sizes(sizes, 1), wide);
  g.partials = partials.mutable_data_ptr();
  torch::stable::parallel_for(0, pieces, 1,
                              [&](int64_t b, int64_t e) { qk_norm_bwd_range(g, b, e); });
  qk_norm_totals(g, pieces);
}

#endif

std::tuple<Tensor, Tensor> qk_norm_fwd(Tensor q, Tensor k, Optional q_weight, Optional k_weight,
                                       Optional cos, Optional sin, double eps, bool interleaved) {
  Call call("qk_norm", q, k, eps, interleaved);
  call.weight(0, "q_weight", q_weight);
  call.weight(1, "k_weight", k_weight);
  call.tables(cos, sin);
  Tensor out_q = empty(q, q.sizes(), q.scalar_type()), out_k = empty(k, k.sizes(), k.scalar_type());
  call.p.sides[0].out = rows_of(out_q);
  call.p.sides[1].out = rows_of(out_k);
  forward(call.p, q);
  return {out_q, out_k};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> qk_norm_bwd(Tensor grad_q, Tensor grad_k, Tensor q,
                                                       Tensor k, Optional q_weight,
                                                       Optional k_weight, Optional cos,
                                                       Optional sin, double eps, bool interleaved) {
  constexpr char kOp[] = "qk_norm backward";
  Call call(kOp, q, k, eps, interleaved);
  call.weight(0, "q_weight", q_weight);
  call.weight(1, "k_weight", k_weight);
  call.tables(cos, sin);
  QkNormGradParams g{};
  g.forward = call.p;
  const Tensor *inputs[] = {&q, &k}, *grads[] = {&grad_q, &grad_k};
  const Optional* weights[] = {&q_weight, &k_weight};
  std::vector<Tensor> results;
  for (int i = 0; i < QkNormParams::kSides; i++) {
    const std::string name = std::string("grad_") + kNames[i];
    check_shape(kOp, name.c_str(), *grads[i], inputs[i]->sizes(), "like the input");
    check_same_dtype(kOp, name.c_str(), *grads[i], kNames[i], *inputs[i]);
    check_same_device(kOp, name.c_str(), *grads[i], kNames[i], *inputs[i]);
    g.grad_out[i] = call.rows(*grads[i]);
    results.push_back(empty(*inputs[i], inputs[i]->sizes(), inputs[i]->scalar_type()));
    g.grad_x[i] = rows_of(results.back());
  }
  for (int i = 0; i < QkNormParams::kSides; i++) {
    const int64_t sizes[] = {*weights[i] ? g.forward.columns : 0};
    results.push_back(empty(q, Sizes(sizes, 1), call.wide));
    if (*weights[i]) g.grad_weight[i] = results.back().mutable_data_ptr();
  }
  backward(g, q, call.wide);
  return {results[0], results[1], results[2], results[3]};
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("qk_norm_fwd", TORCH_BOX(&suffuse::qk_norm_fwd));
  m.impl("qk_norm_bwd", TORCH_BOX(&suffuse::qk_norm_bwd));
}
