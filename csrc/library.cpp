// Every schema of the library: the table of contents. An op's kernels are registered in its
// bind.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <string>

#include "common/isa.h"

namespace {

std::string cpu_isa() { return suffuse::isa_name(suffuse::current_isa()); }

void set_cpu_isa(std::string name) { suffuse::set_isa(name.c_str()); }

}  // namespace

STABLE_TORCH_LIBRARY(suffuse, m) {
  m.def(
      "attention_fwd(Tensor q, Tensor k, Tensor v, float scale, int causal, bool tf32=False) -> "
      "(Tensor out, Tensor lse)");
  m.def(
      "attention_bwd(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor lse, float scale, int causal, bool tf32=False) -> (Tensor grad_q, Tensor grad_k, "
      "Tensor grad_v)");
  m.def(
      "attention_general_fwd(Tensor q, Tensor k, Tensor v, float scale, int left, int right, bool "
      "top_left, float softcap, Tensor? bias, Tensor? alibi_slopes, Tensor? sinks, float dropout, "
      "Tensor? seed, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? "
      "seqused_k, int? max_seqlen_q, int? max_seqlen_k, bool tf32=False) -> (Tensor out, Tensor "
      "lse)");
  m.def(
      "attention_general_bwd(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, "
      "Tensor out, Tensor lse, float scale, int left, int right, bool top_left, float softcap, "
      "Tensor? bias, Tensor? alibi_slopes, Tensor? sinks, float dropout, Tensor? seed, Tensor? "
      "cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_q, Tensor? seqused_k, int? "
      "max_seqlen_q, int? max_seqlen_k, bool bias_grad, bool tf32=False) -> (Tensor grad_q, Tensor "
      "grad_k, Tensor grad_v, Tensor grad_bias)");
  m.def(
      "attention_decode(Tensor q, Tensor k_cache, Tensor v_cache, Tensor? cache_seqlens, Tensor? "
      "cache_index, Tensor? left_pad, Tensor? block_table, float scale, int left, int right, float "
      "softcap, Tensor? alibi_slopes, Tensor? sinks, int splits, bool tf32=False) -> (Tensor out, "
      "Tensor lse)");
  m.def(
      "attention_append(Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor k, Tensor v, Tensor? "
      "cache_seqlens, Tensor? cache_index, Tensor? block_table) -> ()");
  m.def(
      "causal_conv1d_fwd(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? "
      "seq_idx, bool silu) -> Tensor");
  m.def(
      "causal_conv1d_bwd(Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, Tensor? "
      "initial_state, Tensor? seq_idx, bool silu) -> (Tensor grad_x, Tensor grad_weight, Tensor "
      "grad_bias, Tensor grad_initial_state)");
  m.def(
      "causal_conv1d_update(Tensor x, Tensor(a!) conv_state, Tensor weight, Tensor? bias, Tensor? "
      "cache_seqlens, Tensor? conv_state_indices, bool silu) -> Tensor");
  m.def("guidance_gram(Tensor[] tensors, bool center=False) -> (Tensor gram, Tensor means)");
  m.def(
      "linear_scan(Tensor a, Tensor x, Tensor? initial_state, Tensor? seq_idx, bool reverse, bool "
      "lagged) -> (Tensor h, Tensor last_state)");
  m.def(
      "qk_norm_fwd(Tensor q, Tensor k, Tensor? q_weight, Tensor? k_weight, Tensor? cos, Tensor? "
      "sin, float eps, bool interleaved) -> (Tensor q, Tensor k)");
  m.def(
      "qk_norm_bwd(Tensor grad_q, Tensor grad_k, Tensor q, Tensor k, Tensor? q_weight, Tensor? "
      "k_weight, Tensor? cos, Tensor? sin, float eps, bool interleaved) -> (Tensor grad_q, Tensor "
      "grad_k, Tensor grad_q_weight, Tensor grad_k_weight)");
  m.def(
      "rotary(Tensor x, Tensor cos, Tensor sin, Tensor? offsets, Tensor? cu_seqlens, SymInt "
      "offset, "
      "bool interleaved, bool inverse) -> Tensor");
  m.def(
      "rotary_(Tensor(a!) x, Tensor cos, Tensor sin, Tensor? offsets, Tensor? cu_seqlens, SymInt "
      "offset, bool interleaved, bool inverse) -> ()");
  m.def(
      "s4_kernel_cauchy(Tensor v, Tensor z, Tensor w, int power, bool conj, bool next) -> (Tensor "
      "out, Tensor next)");
  m.def("s4_kernel_moments(Tensor u, Tensor x) -> (Tensor zeroth, Tensor first)");
  m.def("s4_kernel_vandermonde(Tensor v, Tensor x, SymInt length, bool real) -> Tensor");
  m.def(
      "sampler_step(Tensor x, Tensor[] model_outputs, Tensor coefficients, Tensor[] history, bool "
      "converted, ScalarType? next_input=None, Tensor? anchor=None, Tensor? extra=None, Tensor? "
      "noise=None, int? seed=None, int offset=0, float? quantile=None, float maximum=1.0) -> "
      "(Tensor sample, Tensor converted, Tensor next_input)");
  m.def(
      "selective_scan_fwd(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? "
      "z, Tensor? delta_bias, Tensor? initial_state, Tensor? seq_idx, bool delta_softplus, bool "
      "reverse, bool save) -> (Tensor out, Tensor last_state, Tensor states, Tensor ungated)");
  m.def(
      "selective_scan_bwd(Tensor grad_out, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor "
      "A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? seq_idx, Tensor "
      "states, Tensor ungated, bool delta_softplus, bool reverse) -> (Tensor grad_u, Tensor "
      "grad_delta, Tensor grad_A, Tensor grad_B, Tensor grad_C, Tensor grad_D, Tensor grad_z, "
      "Tensor grad_delta_bias, Tensor grad_initial_state)");
  m.def(
      "selective_state_update(Tensor(a!) state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, "
      "Tensor? D, Tensor? z, Tensor? dt_bias, bool dt_softplus, Tensor? state_batch_indices) -> "
      "Tensor");
  m.def("cpu_isa() -> str");
  m.def("set_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(suffuse, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("set_cpu_isa", TORCH_BOX(&set_cpu_isa));
}
