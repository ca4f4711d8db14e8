// attention's meeting point with torch on CUDA: outputs, workspace, what runs.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "ops/attention/arguments-inl.h"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/launch_backward.h"
#include "ops/attention/decode_cuda-inl.h"

namespace suffuse {
namespace {

constexpr char kForward[] = "attention", kBackward[] = "attention backward";

AttentionTensor result_rows(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

AttentionOptions plain_options(const char* op, double scale, int64_t causal) {
  if (causal < 0 || causal > 2) {
    fail(op, "causal", "0 (none), 1 (top_left) or 2 (bottom_right)", std::to_string(causal));
  }
  AttentionOptions o{};
  o.scale = scale;
  o.left = -1;
  o.right = causal == 0 ? -1 : 0;
  o.top_left = causal == 1;
  return o;
}

// Runs on q's device and stream.
template <class Run>
void run_on_stream(const Tensor& q, Run&& run) {
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  run(torch::stable::accelerator::getCurrentStream(q.get_device_index()).nativeHandle());
}

// Without max_seqlen a packed tensor's length stands for its longest sequence's: blocks behind the
// end of theirs return at once, and no length has to be read from the device.
void finish_arguments(AttentionCall& call, const AttentionOptions& o, const char* op) {
  const auto longest = [&](const char* name, const std::optional<int64_t>& given, int64_t rows) {
    if (!given) return rows;
    if (*given >= 0 && *given <= rows) return *given;
    fail(op, name, "a length in [0, " + std::to_string(rows) + "]", std::to_string(*given));
  };
  AttentionParams& p = call.p;
  if (o.q_starts) p.T = longest("max_seqlen_q", o.longest_q, p.T);
  if (o.k_starts) p.S = longest("max_seqlen_k", o.longest_k, p.S);
  call.fill_modifiers(o);
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const AttentionOptions& o) {
  AttentionCall call(kForward, q, k, v, o);
  finish_arguments(call, o, kForward);
  AttentionParams& p = call.p;
  const int64_t rows[] = {q.size(0), q.size(1), p.H, p.Dv}, states[] = {q.size(0), p.H, q.size(1)};
  Tensor out = empty(q, shape(rows), q.scalar_type());
  Tensor lse = empty(q, shape(states), wide_type(p.dtype));
  p.out = result_rows(out);
  p.lse = lse.mutable_data_ptr();
  run_on_stream(q, [&](void* stream) { attention_fwd_cuda(p, stream); });
  return {out, lse};
}

// In the bias's shape.
Tensor bias_gradient(AttentionGradParams& a, const Tensor& q, const Optional& bias) {
  if (!bias) fail(kBackward, "bias_grad", "False without a bias", "True");
  if (bias->scalar_type() == ScalarType::Bool) {
    fail(kBackward, "bias_grad", "False for a bool bias", "True");
  }
  Tensor grad = empty(q, bias->sizes(), ScalarType::Float);
  a.grad_bias = grad.mutable_data_ptr();
  const auto stride = [&](int i) { return grad.size(i) == 1 ? 0 : grad.stride(i); };
  a.grad_bias_batch = stride(0);
  a.grad_bias_head = stride(1);
  a.grad_bias_row = stride(2);
  a.grad_bias_key = stride(3);
  return grad;
}

// Rows of packed tensors may belong to no sequence, which the kernels leave alone.
Tensor gradient_like(const Tensor& t, bool packed) {
  return packed ? torch::stable::new_zeros(t, t.sizes(), t.scalar_type())
                : empty(t, t.sizes(), t.scalar_type());
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Gradients backward(const Tensor& grad_out, const Optional& grad_lse, const Tensor& q,
                   const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                   const AttentionOptions& o, bool bias_grad) {
  AttentionCall call(kBackward, q, k, v, o);
  finish_arguments(call, o, kBackward);
  AttentionGradParams a{};
  const AttentionTensor out_rows = call.rows_like_out("out", out);
  a.grad_out = call.rows_like_out("grad_out", grad_out);
  const void* const states = call.states("lse", lse);
  if (grad_lse) a.grad_lse = call.states("grad_lse", *grad_lse);
  a.forward = call.p;
  a.forward.out = out_rows;
  a.forward.lse = const_cast<void*>(states);
  Tensor grad_q = gradient_like(q, o.q_starts.has_value());
  Tensor grad_k = gradient_like(k, o.k_starts.has_value());
  Tensor grad_v = gradient_like(v, o.k_starts.has_value());
  a.grad_q = result_rows(grad_q);
  a.grad_k = result_rows(grad_k);
  a.grad_v = result_rows(grad_v);
  const int64_t none[] = {0};
  Tensor grad_bias =
      bias_grad ? bias_gradient(a, q, o.bias) : empty(q, shape(none), ScalarType::Float);
  const int64_t floats[] = {attention_bwd_cuda_floats(a)};
  Tensor workspace = empty(q, shape(floats), ScalarType::Float);
  a.workspace = workspace.mutable_data_ptr();
  run_on_stream(q, [&](void* stream) { attention_bwd_cuda(a, stream); });
  if (bias_grad) grad_bias = torch::stable::to(grad_bias, o.bias->scalar_type());
  return {grad_q, grad_k, grad_v, grad_bias};
}

std::tuple<Tensor, Tensor> attention_fwd(Tensor q, Tensor k, Tensor v, double scale,
                                         int64_t causal) {
  return forward(q, k, v, plain_options(kForward, scale, causal));
}

std::tuple<Tensor, Tensor, Tensor> attention_bwd(Tensor grad_out, Optional grad_lse, Tensor q,
                                                 Tensor k, Tensor v, Tensor out, Tensor lse,
                                                 double scale, int64_t causal) {
  const auto [grad_q, grad_k, grad_v, grad_bias] = backward(
      grad_out, grad_lse, q, k, v, out, lse, plain_options(kBackward, scale, causal), false);
  return {grad_q, grad_k, grad_v};
}

std::tuple<Tensor, Tensor> attention_general_fwd(
    Tensor q, Tensor k, Tensor v, double scale, int64_t left, int64_t right, bool top_left,
    double softcap, Optional bias, Optional alibi_slopes, Optional sinks, double dropout,
    Optional seed, Optional cu_seqlens_q, Optional cu_seqlens_k, Optional seqused_q,
    Optional seqused_k, std::optional<int64_t> max_seqlen_q, std::optional<int64_t> max_seqlen_k) {
  return forward(q, k, v,
                 {scale, left, right, top_left, softcap, bias, alibi_slopes, sinks, dropout, seed,
                  cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k});
}

Gradients attention_general_bwd(Tensor grad_out, Optional grad_lse, Tensor q, Tensor k, Tensor v,
                                Tensor out, Tensor lse, double scale, int64_t left, int64_t right,
                                bool top_left, double softcap, Optional bias, Optional alibi_slopes,
                                Optional sinks, double dropout, Optional seed,
                                Optional cu_seqlens_q, Optional cu_seqlens_k, Optional seqused_q,
                                Optional seqused_k, std::optional<int64_t> max_seqlen_q,
                                std::optional<int64_t> max_seqlen_k, bool bias_grad) {
  return backward(grad_out, grad_lse, q, k, v, out, lse,
                  {scale, left, right, top_left, softcap, bias, alibi_slopes, sinks, dropout, seed,
                   cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k},
                  bias_grad);
}

std::tuple<Tensor, Tensor> attention_decode(Tensor q, Tensor k_cache, Tensor v_cache,
                                            Optional cache_seqlens, Optional cache_index,
                                            Optional left_pad, Optional block_table, double scale,
                                            int64_t left, int64_t right, double softcap,
                                            Optional alibi_slopes, Optional sinks, int64_t splits) {
  if (splits < 0) fail(DecodeCall::kOp, "splits", "a number >= 0", std::to_string(splits));
  DecodeCall call(q, k_cache, v_cache);
  call.fill_layout(cache_seqlens, cache_index, left_pad, block_table);
  call.fill_scores(scale, left, right, softcap, alibi_slopes, sinks);
  AttentionParams& p = call.p;
  const int64_t rows[] = {p.B, p.T, p.H, p.Dv}, states[] = {p.B, p.H, p.T};
  const int64_t floats[] = {attention_decode_cuda_floats(p, splits)};
  Tensor out = empty(q, shape(rows), q.scalar_type());
  Tensor lse = empty(q, shape(states), wide_type(p.dtype));
  Tensor workspace = empty(q, shape(floats), ScalarType::Float);
  p.out = result_rows(out);
  p.lse = lse.mutable_data_ptr();
  run_on_stream(q, [&](void* stream) {
    attention_decode_cuda(p, splits, workspace.mutable_data_ptr(), stream);
  });
  return {out, lse};
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
  m.impl("attention_fwd", TORCH_BOX(&suffuse::attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&suffuse::attention_bwd));
  m.impl("attention_general_fwd", TORCH_BOX(&suffuse::attention_general_fwd));
  m.impl("attention_general_bwd", TORCH_BOX(&suffuse::attention_general_bwd));
  m.impl("attention_decode", TORCH_BOX(&suffuse::attention_decode));
}
