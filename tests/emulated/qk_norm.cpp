// C entries of the CUDA kernels of qk_norm for the emulator.
#include "emulator/emulator.h"
#include "ops/qk_norm/cuda/kernel.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

struct Emulate {
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const A&... arguments) const {
    emulator::launch(
        name, kernel,
        dim3(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y)),
        dim3(static_cast<unsigned>(shape.threads)), static_cast<size_t>(shape.shared_bytes),
        arguments...);
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

EMULATED int64_t emulated_qk_norm_params_bytes() { return sizeof(QkNormParams); }
EMULATED int64_t emulated_qk_norm_grad_params_bytes() { return sizeof(QkNormGradParams); }

// Numbers that the backward kernels need as partials.
EMULATED int64_t emulated_qk_norm_partials(const QkNormGradParams* g) {
  const int group = group_size(sizeof_dtype(g->forward.dtype));
  return (qk_norm_partial_rows(*g, 0, group) + qk_norm_partial_rows(*g, 1, group)) *
         qk_norm_row(g->forward, group);
}

EMULATED void emulated_qk_norm_fwd(const QkNormParams* p) {
  visit(p->dtype, [&](auto s) { qk_norm_forward<typename decltype(s)::type>(*p, Emulate()); });
}
EMULATED void emulated_qk_norm_bwd(const QkNormGradParams* g) {
  visit(g->forward.dtype,
        [&](auto s) { qk_norm_backward<typename decltype(s)::type>(*g, Emulate()); });
}
