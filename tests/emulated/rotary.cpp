// C entry of the CUDA kernel of rotary for the emulator.
#include "emulator/emulator.h"
#include "ops/rotary/cuda/kernel.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <class S>
constexpr bool kBuilt = std::is_same_v<S, float>;
#else
template <class S>
constexpr bool kBuilt = true;
#endif

template <class S, class C>
void run(const RotaryParams& p) {
  const LaunchShape shape = rotary_shape(p);
  if (shape.blocks == 0) return;
  emulator::launch("rotary_kernel", rotary_kernel<S, C>, dim3(static_cast<unsigned>(shape.blocks)),
                   dim3(static_cast<unsigned>(shape.threads)),
                   static_cast<size_t>(shape.shared_bytes), p);
}

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_rotary_params_bytes() { return sizeof(suffuse::RotaryParams); }

EMULATED void emulated_rotary(const suffuse::RotaryParams* p) {
  suffuse::visit_rotary(*p, [&](auto x, auto table) {
    using S = typename decltype(x)::type;
    if constexpr (suffuse::kBuilt<S>) suffuse::run<S, typename decltype(table)::type>(*p);
  });
}
