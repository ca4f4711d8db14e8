// attention's meeting point with torch on the CPU: outputs, workspace, units of work.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>

#include "ops/attention/cpu/kernel.h"
#include "ops/attention/decode-inl.h"
#include "ops/attention/entries-inl.h"
#include "ops/attention/plan-inl.h"

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

// Fills p.T and p.S with the longest lengths, and all that depends on them.
void finish_arguments(AttentionCall& call, const AttentionOptions& o, const Lengths& queries,
                      const Lengths& keys, const char* op) {
  call.p.T = queries.check(op, "q", o.longest_q);
  call.p.S = keys.check(op, "k", o.longest_k);
  call.fill_modifiers(o);
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const AttentionOptions& o) {
  AttentionCall call(kForward, q, k, v, o);
  AttentionParams& p = call.p;
  const Lengths queries = query_lengths(p, q.size(1)), keys = key_lengths(p, k.size(1));
  finish_arguments(call, o, queries, keys, kForward);
  const int64_t rows[] = {q.size(0), q.size(1), p.H, p.Dv}, states[] = {q.size(0), p.H, q.size(1)};
  Tensor out = empty(q, shape(rows), q.scalar_type());
  Tensor lse = empty(q, shape(states), wide_type(p.dtype));
  p.out = result_rows(out);
  p.lse = lse.mutable_data_ptr();
  if (queries.varied()) {
    clear_gaps(queries, out);
    if (p.dtype == DType::f64) {
      clear_lse_gaps(queries, static_cast<double*>(p.lse), p.H);
    } else {
      clear_lse_gaps(queries, static_cast<float*>(p.lse), p.H);
    }
  }
  if (attention_few_rows(p)) {
    run_decode(p, q, wide_type(p.dtype), 0);
    return {out, lse};
  }
  // A block's result does not depend on how the queries are cut, so the number of threads may
  // decide it.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t size = p.dtype == DType::f64 ? 8 : 4;
  cut_into_blocks(p, (p.D + p.Dv) * size, p.B * p.H, threads > 1 ? 4 * threads : 1);
  const std::vector<int64_t> starts = block_starts(p, queries);
  p.block_starts = starts.empty() ? nullptr : starts.data();
  const int64_t blocks = starts.empty() ? p.B * p.blocks : starts.back();
  const int64_t seen = std::min(p.S, p.scores.left + p.scores.right + p.block_rows);
  run_units(p.H * blocks, std::min(p.T, p.block_rows) * seen * (p.D + p.Dv),
            [&](int64_t begin, int64_t end) { attention_fwd_range(p, begin, end); });
  return {out, lse};
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

// Zeros in the bias's shape for the kernels to add to.
Tensor begin_bias_gradient(AttentionGradParams& a, const Tensor& q, const Optional& bias) {
  const AttentionParams& p = a.forward;
  check_bias_gradient(bias);
  Tensor grad = empty(q, bias->sizes(), wide_type(p.dtype));
  point_to_bias_gradient(a, grad);
  if (grad.numel() > 0) {
    std::memset(a.grad_bias, 0, static_cast<size_t>(grad.numel() * grad.element_size()));
  }
  a.bias_apart = (a.grad_bias_batch == 0 && p.B > 1) || (a.grad_bias_head == 0 && p.H > 1) ||
                 (a.grad_bias_row == 0 && p.T > 1);
  return grad;
}

Gradients backward(const Tensor& grad_out, const Optional& grad_lse, const Tensor& q,
                   const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                   const AttentionOptions& o, bool bias_grad) {
  AttentionCall call(kBackward, q, k, v, o);
  const Lengths queries = query_lengths(call.p, q.size(1)), keys = key_lengths(call.p, k.size(1));
  finish_arguments(call, o, queries, keys, kBackward);
  call.p.out = call.rows_like_out("out", out);
  call.p.lse = const_cast<void*>(call.states("lse", lse));
  AttentionGradParams a{};
  a.grad_out = call.rows_like_out("grad_out", grad_out);
  if (grad_lse) a.grad_lse = call.states("grad_lse", *grad_lse);
  a.forward = call.p;
  AttentionParams& p = a.forward;
  Tensor grad_q = empty(q, q.sizes(), q.scalar_type());
  Tensor grad_k = empty(k, k.sizes(), k.scalar_type());
  Tensor grad_v = empty(v, v.sizes(), v.scalar_type());
  const int64_t none[] = {0};
  Tensor grad_bias = empty(q, shape(none), q.scalar_type());
  if (bias_grad) grad_bias = begin_bias_gradient(a, q, o.bias);
  clear_gaps(queries, grad_q);
  clear_gaps(keys, grad_k);
  clear_gaps(keys, grad_v);
  a.grad_q = result_rows(grad_q);
  a.grad_k = result_rows(grad_k);
  a.grad_v = result_rows(grad_v);
  plan_backward(a);
  const int64_t pairs = p.B * p.G;
  std::optional<Tensor> workspace;
  if (a.chunks > 1) {
    const int64_t each = p.S * (attention_padded(p.D) + attention_padded(p.Dv));
    const int64_t sizes[] = {pairs * a.chunks * each};
    workspace = empty(q, shape(sizes), wide_type(p.dtype));
    a.workspace = workspace->mutable_data_ptr();
  }
  const int64_t work = p.T * (p.H / p.G) / a.chunks * p.S * (3 * p.D + 2 * p.Dv);
  run_units(pairs * a.chunks, work,
            [&](int64_t begin, int64_t end) { attention_bwd_range(a, begin, end); });
  if (a.chunks > 1) {
    run_units(pairs, kGrain,
              [&](int64_t begin, int64_t end) { attention_bwd_sum_range(a, begin, end); });
  }
  if (a.bias_apart) {
    const int64_t units = (a.grad_bias_batch != 0 ? p.B : 1) * (a.grad_bias_head != 0 ? p.H : 1) *
                          (a.grad_bias_row != 0 ? p.blocks : 1);
    run_units(p.T == 0 || p.B == 0 ? 0 : units, kGrain,
              [&](int64_t begin, int64_t end) { attention_bwd_bias_range(a, begin, end); });
  }
  if (bias_grad) grad_bias = torch::stable::to(grad_bias, o.bias->scalar_type());
  return {grad_q, grad_k, grad_v, grad_bias};
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("attention_fwd", TORCH_BOX(&suffuse::attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&suffuse::attention_bwd));
  m.impl("attention_general_fwd", TORCH_BOX(&suffuse::attention_general_fwd));
  m.impl("attention_general_bwd", TORCH_BOX(&suffuse::attention_general_bwd));
}
