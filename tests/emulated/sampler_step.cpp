// C entries of the CUDA kernels of sampler_step for the emulator.
#include "emulator/emulator.h"
#include "ops/sampler_step/cuda/config.h"
#include "ops/sampler_step/cuda/kernel.cuh"
#include "ops/sampler_step/cuda/threshold.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

template <class P>
void launch(const char* name, void (*kernel)(P), const LaunchShape& shape, const P& p) {
  emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                   dim3(static_cast<unsigned>(shape.threads)),
                   static_cast<size_t>(shape.shared_bytes), p);
}

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <class X, class M>
constexpr bool kBuilt = std::is_same_v<X, float> && std::is_same_v<M, float>;
#else
template <class X, class M>
constexpr bool kBuilt = true;
#endif

template <class X, class M, int W>
void run(const SamplerStepParams& p, int64_t blocks) {
  LaunchShape shape = sampler_step_shape(p);
  if (blocks) shape.blocks = blocks;
  if (p.scales) {
    constexpr int kGroup = group_size(sizeof(X) > sizeof(M) ? sizeof(X) : sizeof(M));
    launch("sampler_step_scales_kernel", sampler_step_scales_kernel<X, M, kGroup>,
           sampler_step_scales_shape(p), p);
  }
  launch("sampler_step_kernel", sampler_step_kernel<X, M, W>, shape, p);
}

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_sampler_step_params_bytes() { return sizeof(suffuse::SamplerStepParams); }

// As the launcher does, but with `blocks` blocks for the step, so that each thread goes round more
// than once; 0: as many as the launcher.
EMULATED void emulated_sampler_step(const suffuse::SamplerStepParams* p, int64_t blocks) {
  suffuse::visit_sampler_step(*p, [&](auto x, auto m, auto group) {
    using X = typename decltype(x)::type;
    using M = typename decltype(m)::type;
    if constexpr (suffuse::kBuilt<X, M>) suffuse::run<X, M, decltype(group)::value>(*p, blocks);
  });
}
