// C entries of the CUDA kernels of causal_conv1d for the emulator.
#include "emulator/emulator.h"
#include "ops/causal_conv1d/cuda/kernel.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

struct Emulate {
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const A&... arguments) const {
    emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                     dim3(static_cast<unsigned>(shape.threads)),
                     static_cast<size_t>(shape.shared_bytes), arguments...);
  }
};

// Planted bugs are tried on float alone, which compiles faster.
template <class Fn>
void visit(DType dtype, Fn&& fn) {
#if defined(SUFFUSE_MUTANT)
  if (dtype == DType::f32) fn(TypeTag<float>{});
#else
  visit_dtype(dtype, fn);
#endif
}

}  // namespace
}  // namespace suffuse

using namespace suffuse;

EMULATED int64_t emulated_causal_conv1d_params_bytes() { return sizeof(CausalConv1dParams); }
EMULATED int64_t emulated_causal_conv1d_grad_params_bytes() {
  return sizeof(CausalConv1dGradParams);
}
EMULATED int64_t emulated_causal_conv1d_update_params_bytes() {
  return sizeof(CausalConv1dUpdateParams);
}

// Rows of partials, and whether the gradient of z is kept.
EMULATED int64_t emulated_causal_conv1d_partial_rows(const CausalConv1dParams* p) {
  return p->batch * conv_pieces(*p);
}
EMULATED int64_t emulated_causal_conv1d_keeps_grad_z(const CausalConv1dParams* p) {
  return conv_path(*p) == ConvPath::any;
}

EMULATED void emulated_causal_conv1d_fwd(const CausalConv1dParams* p) {
  visit(p->dtype, [&](auto s) { conv_forward<typename decltype(s)::type>(*p, Emulate()); });
}
EMULATED void emulated_causal_conv1d_bwd(const CausalConv1dGradParams* g) {
  visit(g->forward.dtype,
        [&](auto s) { conv_backward<typename decltype(s)::type>(*g, Emulate()); });
}
EMULATED void emulated_causal_conv1d_update(const CausalConv1dUpdateParams* p) {
  visit(p->dtype, [&](auto s) { conv_update<typename decltype(s)::type>(*p, Emulate()); });
}
