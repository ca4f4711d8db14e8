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
      "attention_fwd(Tensor q, Tensor k, Tensor v, float scale, int causal) -> (Tensor out, Tensor "
      "lse)");
  m.def(
      "attention_bwd(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor lse, float scale, int causal) -> (Tensor grad_q, Tensor grad_k, Tensor grad_v)");
  m.def(
      "sampler_step(Tensor x, Tensor[] model_outputs, Tensor coefficients, Tensor[] history, bool "
      "converted, ScalarType? next_input=None, Tensor? anchor=None, Tensor? extra=None, Tensor? "
      "noise=None, int? seed=None, int offset=0, float? quantile=None, float maximum=1.0) -> "
      "(Tensor sample, Tensor converted, Tensor next_input)");
  m.def("cpu_isa() -> str");
  m.def("set_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(suffuse, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("set_cpu_isa", TORCH_BOX(&set_cpu_isa));
}
