// attention's meeting point with torch on CUDA: outputs, workspace, what runs.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "ops/attention/append_arguments-inl.h"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/launch_backward.h"
#include "ops/attention/decode_arguments-inl.h"
#include "ops/attention/entries-inl.h"

namespace suffuse {
namespace {

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
  run_on_stream(q, [&](void* stream) { attention_fwd_cuda(p, stream, o.tf32); });
  return {out, lse};
}

// In the bias's shape.
Tensor bias_gradient(AttentionGradParams& a, const Tensor& q, const Optional& bias) {
  check_bias_gradient(bias);
  Tensor grad = empty(q, bias->sizes(), ScalarType::Float);
  point_to_bias_gradient(a, grad);
  return grad;
}

// Rows of packed tensors may belong to no sequence, which the kernels leave alone.
Tensor gradient_like(const Tensor& t, bool packed) {
  return packed ? torch::stable::new_zeros(t, t.sizes(), t.scalar_type())
                : empty(t, t.sizes(), t.scalar_type());
}

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
  run_on_stream(q, [&](void* stream) { attention_bwd_cuda(a, stream, o.tf32); });
  if (bias_grad) grad_bias = torch::stable::to(grad_bias, o.bias->scalar_type());
  return {grad_q, grad_k, grad_v, grad_bias};
}

std::tuple<Tensor, Tensor> attention_decode(Tensor q, Tensor k_cache, Tensor v_cache,
                                            Optional cache_seqlens, Optional cache_index,
                                            Optional left_pad, Optional block_table, double scale,
                                            int64_t left, int64_t right, double softcap,
                                            Optional alibi_slopes, Optional sinks, int64_t splits,
                                            bool tf32) {
  DecodeCall call(q, k_cache, v_cache);
  AttentionParams& p = call.p;
  const CacheLayout cache(kDecode, k_cache, p.B, cache_seqlens, cache_index, left_pad, block_table);
  p.layout = cache.layout;
  p.S = cache.room();
  call.fill_scores(scale, left, right, softcap, alibi_slopes, sinks, splits);
  const int64_t rows[] = {p.B, p.T, p.H, p.Dv}, states[] = {p.B, p.H, p.T};
  const int64_t floats[] = {attention_decode_cuda_floats(p, splits)};
  Tensor out = empty(q, shape(rows), q.scalar_type());
  Tensor lse = empty(q, shape(states), wide_type(p.dtype));
  Tensor workspace = empty(q, shape(floats), ScalarType::Float);
  p.out = result_rows(out);
  p.lse = lse.mutable_data_ptr();
  run_on_stream(q, [&](void* stream) {
    attention_decode_cuda(p, splits, workspace.mutable_data_ptr(), stream, tf32);
  });
  return {out, lse};
}

// What stands in the layout is not looked at, as in attention_decode: the kernel leaves out a row
// whose place is outside of the cache.
void attention_append(Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Optional cache_seqlens,
                      Optional cache_index, Optional block_table) {
  append_with(k_cache, v_cache, k, v, cache_seqlens, cache_index, block_table,
              [&](const AttentionAppendParams& p, const CacheLayout&) {
                run_on_stream(k, [&](void* stream) { attention_append_cuda(p, stream); });
              });
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
  m.impl("attention_fwd", TORCH_BOX(&suffuse::attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&suffuse::attention_bwd));
  m.impl("attention_general_fwd", TORCH_BOX(&suffuse::attention_general_fwd));
  m.impl("attention_general_bwd", TORCH_BOX(&suffuse::attention_general_bwd));
  m.impl("attention_decode", TORCH_BOX(&suffuse::attention_decode));
  m.impl("attention_append", TORCH_BOX(&suffuse::attention_append));
}
