// C entries of the CUDA kernels of linear_scan for the emulator.
#include "emulator/emulator.h"
#include "ops/linear_scan/cuda/kernel.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <class A, class S>
constexpr bool kBuilt = std::is_same_v<A, float> && std::is_same_v<S, float>;
#else
template <class A, class S>
constexpr bool kBuilt = true;
#endif

template <class A, class S, bool kReverse>
void run(const LinearScanParams& p, void* workspace) {
  with_linear_scan_kernel<A, S, kReverse>(
      p, workspace, [&](const char* name, auto kernel, const LaunchShape& shape, auto... given) {
        emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                         dim3(static_cast<unsigned>(shape.threads)),
                         static_cast<size_t>(shape.shared_bytes), given...);
      });
}

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_linear_scan_params_bytes() { return sizeof(suffuse::LinearScanParams); }

EMULATED int64_t emulated_linear_scan_workspace(const suffuse::LinearScanParams* p) {
  return suffuse::linear_scan_workspace_words(*p);
}

EMULATED void emulated_linear_scan(const suffuse::LinearScanParams* p, void* workspace) {
  suffuse::visit_linear_scan(*p, [&](auto a, auto x) {
    using A = typename decltype(a)::type;
    using S = typename decltype(x)::type;
    if constexpr (suffuse::kBuilt<A, S>) {
      p->reverse ? suffuse::run<A, S, true>(*p, workspace)
                 : suffuse::run<A, S, false>(*p, workspace);
    }
  });
}
