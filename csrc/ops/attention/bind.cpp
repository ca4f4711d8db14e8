// attention's meeting point with torch: checks, outputs, workspace, params.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>

#include "ops/attention/cpu/kernel.h"
#include "ops/attention/params.h"
#include "torch/checks.h"

namespace suffuse {

void* attention_scratch(int64_t bytes) {
  constexpr int64_t kPage = 4096, kKept = 16 << 20;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local int64_t size = 0;
  const bool wasteful = size > kKept && size / 4 > bytes;
  if (bytes > size || wasteful) {
    memory.reset();
    size = (bytes + kPage - 1) / kPage * kPage;
    memory.reset(std::aligned_alloc(kPage, static_cast<size_t>(size)));
    if (memory == nullptr) {
      size = 0;
      fail("attention", "scratch", std::to_string(bytes) + " bytes of memory", "none");
    }
  }
  return memory.get();
}

namespace {

using torch::headeronly::ScalarType;

constexpr char kForward[] = "attention", kBackward[] = "attention backward";
constexpr int64_t kRowStep = 64;       // block lengths are multiples of every panel's
constexpr int64_t kScratch = 1 << 20;  // bytes of a thread's panels: about the L2 cache
constexpr int64_t kGrain = 400000;     // multiply-adds that are worth a task of their own

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <size_t n>
Sizes shape(const int64_t (&sizes)[n]) {
  return Sizes(sizes, n);
}

// Rows are read in place if their elements are adjacent, else copied; the copy lives in `holder`.
AttentionTensor rows_of(const Tensor& t, Tensor& holder) {
  holder = t.size(3) > 1 && t.stride(3) != 1 ? torch::stable::contiguous(t) : t;
  return {const_cast<void*>(holder.const_data_ptr()), holder.stride(0), holder.stride(1),
          holder.stride(2)};
}

AttentionTensor result_rows(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

Tensor empty(const Tensor& like, Sizes sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

ScalarType wide_type(DType dtype) {
  return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

void check_inputs(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  check_rank(op, "q", q, 4, "[B, T, H, D]");
  check_rank(op, "k", k, 4, "[B, S, G, D]");
  check_rank(op, "v", v, 4, "[B, S, G, Dv]");
  dtype_of(op, "q", q);
  check_same_dtype(op, "k", k, "q", q);
  check_same_dtype(op, "v", v, "q", q);
  check_same_device(op, "k", k, "q", q);
  check_same_device(op, "v", v, "q", q);
  const int64_t B = q.size(0), D = q.size(3), S = k.size(1), G = k.size(2);
  if (D < 1) fail(op, "q", "D >= 1 in [B, T, H, D]", to_string(q.sizes()));
  check_shape(op, "k", k, shape({B, S, G, D}), "with B and D of q");
  check_shape(op, "v", v, shape({B, S, G, v.size(3)}), "with B, S and G of k");
  if (G < 1 || q.size(2) % G != 0) {
    fail(op, "k", "G that divides the " + std::to_string(q.size(2)) + " heads of q",
         "G = " + std::to_string(G));
  }
}

AttentionParams params(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                       double scale, int64_t causal) {
  check_inputs(op, q, k, v);
  if (!std::isfinite(scale)) fail(op, "scale", "a finite number", std::to_string(scale));
  if (causal < 0 || causal > 2) {
    fail(op, "causal", "0 (none), 1 (top_left) or 2 (bottom_right)", std::to_string(causal));
  }
  AttentionParams p{};
  p.B = q.size(0);
  p.T = q.size(1);
  p.S = k.size(1);
  p.H = q.size(2);
  p.G = k.size(2);
  p.D = q.size(3);
  p.Dv = v.size(3);
  p.scale = scale;
  p.causal = causal != 0;
  p.shift = causal == 2 ? p.S - p.T : 0;
  p.dtype = dtype_of(op, "q", q);
  return p;
}

// Blocks of equal length, at most `rows` queries, and as many as `units` asks for in all if T is
// long enough.
void cut_into_blocks(AttentionParams& p, int64_t bytes_per_row, int64_t pairs, int64_t units) {
  int64_t rows =
      std::clamp(kScratch / bytes_per_row / kRowStep, int64_t{1}, int64_t{16}) * kRowStep;
  while (rows > kRowStep && pairs * ceil_div(p.T, rows) < units) {
    rows = ceil_div(rows / 2, kRowStep) * kRowStep;
  }
  p.blocks = ceil_div(p.T, rows);
  p.block_rows = p.blocks == 0 ? kRowStep : ceil_div(ceil_div(p.T, p.blocks), kRowStep) * kRowStep;
  p.blocks = ceil_div(p.T, p.block_rows);
}

std::tuple<Tensor, Tensor> attention_fwd(Tensor q, Tensor k, Tensor v, double scale,
                                         int64_t causal) {
  AttentionParams p = params(kForward, q, k, v, scale, causal);
  Tensor out = empty(q, shape({p.B, p.T, p.H, p.Dv}), q.scalar_type());
  Tensor lse = empty(q, shape({p.B, p.H, p.T}), wide_type(p.dtype));
  Tensor holders[3];
  p.q = rows_of(q, holders[0]);
  p.k = rows_of(k, holders[1]);
  p.v = rows_of(v, holders[2]);
  p.out = result_rows(out);
  p.lse = lse.mutable_data_ptr();
  // A block's result does not depend on how the queries are cut, so the number of threads may
  // decide it.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t size = p.dtype == DType::f64 ? 8 : 4;
  cut_into_blocks(p, (p.D + p.Dv) * size, p.B * p.H, threads > 1 ? 4 * threads : 1);
  const int64_t work = std::min(p.T, p.block_rows) * p.S * (p.D + p.Dv);
  torch::stable::parallel_for(
      0, p.B * p.H * p.blocks, kGrain / (work + 1) + 1,
      [&](int64_t begin, int64_t end) { attention_fwd_range(p, begin, end); });
  return {out, lse};
}

void check_results(const AttentionParams& p, const Tensor& grad_out,
                   const std::optional<Tensor>& grad_lse, const Tensor& q, const Tensor& out,
                   const Tensor& lse) {
  const auto check = [&](const char* name, const Tensor& t, Sizes sizes, const char* like,
                         ScalarType type) {
    check_shape(kBackward, name, t, sizes, like);
    if (t.scalar_type() != type) {
      fail(kBackward, name, "dtype " + dtype_name(type), dtype_name(t.scalar_type()));
    }
    check_same_device(kBackward, name, t, "q", q);
  };
  const int64_t rows[] = {p.B, p.T, p.H, p.Dv}, states[] = {p.B, p.H, p.T};
  const ScalarType wide = wide_type(p.dtype);
  check("out", out, shape(rows), "[B, T, H, Dv]", q.scalar_type());
  check("grad_out", grad_out, shape(rows), "like out", q.scalar_type());
  check("lse", lse, shape(states), "[B, H, T]", wide);
  if (grad_lse) check("grad_lse", *grad_lse, shape(states), "like lse", wide);
}

// Units of work by shape alone: the order in which dK and dV are summed must not depend on the
// machine.
void plan_backward(AttentionGradParams& a) {
  constexpr int64_t kUnits = 8;
  AttentionParams& p = a.forward;
  const int64_t size = p.dtype == DType::f64 ? 8 : 4, pairs = p.B * p.G;
  cut_into_blocks(p, (3 * p.D + 2 * p.Dv) * size, pairs * (p.H / p.G), kUnits);
  const int64_t blocks = p.blocks * (p.H / p.G);
  a.chunks = pairs == 0 ? 1 : std::max<int64_t>(1, std::min(blocks, kUnits / pairs));
}

std::tuple<Tensor, Tensor, Tensor> attention_bwd(Tensor grad_out, std::optional<Tensor> grad_lse,
                                                 Tensor q, Tensor k, Tensor v, Tensor out,
                                                 Tensor lse, double scale, int64_t causal) {
  AttentionGradParams a{};
  a.forward = params(kBackward, q, k, v, scale, causal);
  AttentionParams& p = a.forward;
  check_results(p, grad_out, grad_lse, q, out, lse);
  Tensor grad_q = empty(q, q.sizes(), q.scalar_type());
  Tensor grad_k = empty(k, k.sizes(), k.scalar_type());
  Tensor grad_v = empty(v, v.sizes(), v.scalar_type());
  Tensor holders[5];
  p.q = rows_of(q, holders[0]);
  p.k = rows_of(k, holders[1]);
  p.v = rows_of(v, holders[2]);
  p.out = rows_of(out, holders[3]);
  a.grad_out = rows_of(grad_out, holders[4]);
  a.grad_q = result_rows(grad_q);
  a.grad_k = result_rows(grad_k);
  a.grad_v = result_rows(grad_v);
  lse = torch::stable::contiguous(lse);
  p.lse = const_cast<void*>(lse.const_data_ptr());
  if (grad_lse) {
    grad_lse = torch::stable::contiguous(*grad_lse);
    a.grad_lse = grad_lse->const_data_ptr();
  }
  plan_backward(a);
  const int64_t pairs = p.B * p.G;
  std::optional<Tensor> workspace;
  if (a.chunks > 1) {
    const int64_t each = p.S * (attention_padded(p.D) + attention_padded(p.Dv));
    workspace = empty(q, shape({pairs * a.chunks * each}), wide_type(p.dtype));
    a.workspace = workspace->mutable_data_ptr();
  }
  const int64_t work = p.T * (p.H / p.G) / a.chunks * p.S * (3 * p.D + 2 * p.Dv);
  torch::stable::parallel_for(
      0, pairs * a.chunks, kGrain / (work + 1) + 1,
      [&](int64_t begin, int64_t end) { attention_bwd_range(a, begin, end); });
  if (a.chunks > 1) {
    torch::stable::parallel_for(
        0, pairs, 1, [&](int64_t begin, int64_t end) { attention_bwd_sum_range(a, begin, end); });
  }
  return {grad_q, grad_k, grad_v};
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("attention_fwd", TORCH_BOX(&suffuse::attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&suffuse::attention_bwd));
}
