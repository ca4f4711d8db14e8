// C entries of the CUDA kernels of selective_scan for the emulator.
#include "emulated/launcher.h"
#include "ops/selective_scan/cuda/passes.cuh"
#include "ops/selective_scan/cuda/update.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

// The launcher's own choice, but for what is not 0.
ScanCut with(ScanCut cut, int64_t segments, int64_t rounds) {
  if (segments) cut.segments = static_cast<int32_t>(segments);
  if (rounds) {
    const int64_t blocks = (cut.of_group + cut.channels - 1) / cut.channels;
    cut.rounds = static_cast<int32_t>(rounds);
    cut.parts = static_cast<int32_t>((blocks + rounds - 1) / rounds);
  }
  return cut;
}

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <class S>
constexpr bool kBuilt = std::is_same_v<S, float>;
#else
template <class S>
constexpr bool kBuilt = true;
#endif

template <class Fn>
void visit_built(DType dtype, Fn&& fn) {
  visit_scan(dtype, [&](auto tag) {
    if constexpr (kBuilt<typename decltype(tag)::type>) fn(tag);
  });
}

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_selective_scan_params_bytes() {
  return sizeof(suffuse::SelectiveScanParams);
}
EMULATED int64_t emulated_selective_scan_grad_params_bytes() {
  return sizeof(suffuse::SelectiveScanGradParams);
}

EMULATED int64_t emulated_selective_state_update_params_bytes() {
  return sizeof(suffuse::StateUpdateParams);
}

// Floats of workspace, for the cut that the call then takes.
EMULATED int64_t emulated_selective_scan_fwd_floats(const suffuse::SelectiveScanParams* p,
                                                    int64_t segments) {
  return suffuse::scan_forward_floats(*p,
                                      suffuse::with(suffuse::scan_forward_cut(*p), segments, 0));
}
EMULATED int64_t emulated_selective_scan_bwd_floats(const suffuse::SelectiveScanParams* p,
                                                    int64_t segments, int64_t rounds) {
  return suffuse::scan_backward_floats(
      *p, suffuse::with(suffuse::scan_backward_cut(*p), segments, rounds));
}

EMULATED void emulated_selective_scan_fwd(const suffuse::SelectiveScanParams* p, int64_t segments) {
  const suffuse::ScanCut cut = suffuse::with(suffuse::scan_forward_cut(*p), segments, 0);
  suffuse::visit_built(p->dtype, [&](auto tag) {
    suffuse::scan_forward_passes<typename decltype(tag)::type>(*p, cut,
                                                               suffuse::EmulatedLauncher());
  });
}
EMULATED void emulated_selective_scan_bwd(const suffuse::SelectiveScanGradParams* g,
                                          int64_t segments, int64_t rounds) {
  const suffuse::ScanCut launched = suffuse::scan_backward_cut(g->forward);
  const suffuse::ScanCut cut = suffuse::with(launched, segments, rounds);
  suffuse::visit_built(g->forward.dtype, [&](auto tag) {
    suffuse::scan_backward_passes<typename decltype(tag)::type>(*g, cut,
                                                                suffuse::EmulatedLauncher());
  });
}

EMULATED void emulated_selective_state_update(const suffuse::StateUpdateParams* p) {
  suffuse::visit_state_update(*p, [&](auto tag, auto state_tag) {
    using S = typename decltype(tag)::type;
    using T = typename decltype(state_tag)::type;
    if constexpr (suffuse::kBuilt<S> && suffuse::kBuilt<T>) {
      suffuse::EmulatedLauncher()(
          "selective_state_update_kernel", suffuse::selective_state_update_kernel<S, T>,
          suffuse::state_update_shape(*p), *p, static_cast<int>(suffuse::state_update_lanes(*p)));
    }
  });
}
