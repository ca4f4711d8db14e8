// The torch ops of attention, alike on every device: the files that bind it define forward and
// backward. Part of those files, which have included torch.
#pragma once

#include <string>
#include <tuple>

#include "ops/attention/arguments-inl.h"

namespace suffuse {
namespace {

constexpr char kForward[] = "attention", kBackward[] = "attention backward";

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// For the device that the including file binds.
std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const AttentionOptions& o);
Gradients backward(const Tensor& grad_out, const Optional& grad_lse, const Tensor& q,
                   const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                   const AttentionOptions& o, bool bias_grad);

AttentionOptions plain_options(const char* op, double scale, int64_t causal, bool tf32) {
  if (causal < 0 || causal > 2) {
    fail(op, "causal", "0 (none), 1 (top_left) or 2 (bottom_right)", std::to_string(causal));
  }
  AttentionOptions o{};
  o.scale = scale;
  o.left = -1;
  o.right = causal == 0 ? -1 : 0;
  o.top_left = causal == 1;
  o.tf32 = tf32;
  return o;
}

// Only a bias of numbers has a gradient.
void check_bias_gradient(const Optional& bias) {
  if (!bias) fail(kBackward, "bias_grad", "False without a bias", "True");
  if (bias->scalar_type() == ScalarType::Bool) {
    fail(kBackward, "bias_grad", "False for a bool bias", "True");
  }
}

void point_to_bias_gradient(AttentionGradParams& a, const Tensor& grad) {
  a.grad_bias = grad.mutable_data_ptr();
  const auto stride = [&](int i) { return grad.size(i) == 1 ? 0 : grad.stride(i); };
  a.grad_bias_batch = stride(0);
  a.grad_bias_head = stride(1);
  a.grad_bias_row = stride(2);
  a.grad_bias_key = stride(3);
}

std::tuple<Tensor, Tensor> attention_fwd(Tensor q, Tensor k, Tensor v, double scale, int64_t causal,
                                         bool tf32) {
  return forward(q, k, v, plain_options(kForward, scale, causal, tf32));
}

std::tuple<Tensor, Tensor, Tensor> attention_bwd(Tensor grad_out, Optional grad_lse, Tensor q,
                                                 Tensor k, Tensor v, Tensor out, Tensor lse,
                                                 double scale, int64_t causal, bool tf32) {
  const auto [grad_q, grad_k, grad_v, grad_bias] = backward(
      grad_out, grad_lse, q, k, v, out, lse, plain_options(kBackward, scale, causal, tf32), false);
  return {grad_q, grad_k, grad_v};
}

std::tuple<Tensor, Tensor> attention_general_fwd(
    Tensor q, Tensor k, Tensor v, double scale, int64_t left, int64_t right, bool top_left,
    double softcap, Optional bias, Optional alibi_slopes, Optional sinks, double dropout,
    Optional seed, Optional cu_seqlens_q, Optional cu_seqlens_k, Optional seqused_q,
    Optional seqused_k, std::optional<int64_t> max_seqlen_q, std::optional<int64_t> max_seqlen_k,
    bool tf32) {
  return forward(
      q, k, v,
      {scale, left, right, top_left, softcap, bias, alibi_slopes, sinks, dropout, seed,
       cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, tf32});
}

Gradients attention_general_bwd(Tensor grad_out, Optional grad_lse, Tensor q, Tensor k, Tensor v,
                                Tensor out, Tensor lse, double scale, int64_t left, int64_t right,
                                bool top_left, double softcap, Optional bias, Optional alibi_slopes,
                                Optional sinks, double dropout, Optional seed,
                                Optional cu_seqlens_q, Optional cu_seqlens_k, Optional seqused_q,
                                Optional seqused_k, std::optional<int64_t> max_seqlen_q,
                                std::optional<int64_t> max_seqlen_k, bool bias_grad, bool tf32) {
  return backward(
      grad_out, grad_lse, q, k, v, out, lse,
      {scale, left, right, top_left, softcap, bias, alibi_slopes, sinks, dropout, seed,
       cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, tf32},
      bias_grad);
}

}  // namespace
}  // namespace suffuse
