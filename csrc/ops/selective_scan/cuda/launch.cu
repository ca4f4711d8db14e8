// Launches the CUDA kernels of selective_scan.
#include "cuda/launcher.cuh"
#include "ops/selective_scan/cuda/launch.h"
#include "ops/selective_scan/cuda/passes.cuh"
#include "ops/selective_scan/cuda/update.cuh"

namespace suffuse {

int64_t selective_scan_fwd_floats(const SelectiveScanParams& p) {
  return scan_forward_floats(p, scan_forward_cut(p));
}
int64_t selective_scan_bwd_floats(const SelectiveScanParams& p) {
  return scan_backward_floats(p, scan_backward_cut(p));
}

void selective_scan_fwd_cuda(const SelectiveScanParams& p, void* stream) {
  const Launcher launch("selective_scan", stream);
  visit_scan(p.dtype, [&](auto tag) {
    scan_forward_passes<typename decltype(tag)::type>(p, scan_forward_cut(p), launch);
  });
}

void selective_scan_bwd_cuda(const SelectiveScanGradParams& g, void* stream) {
  const Launcher launch("selective_scan", stream);
  visit_scan(g.forward.dtype, [&](auto tag) {
    scan_backward_passes<typename decltype(tag)::type>(g, scan_backward_cut(g.forward), launch);
  });
}

void selective_state_update_cuda(const StateUpdateParams& p, void* stream) {
  const Launcher launch("selective_scan", stream);
  visit_state_update(p, [&](auto tag, auto state_tag) {
    using S = typename decltype(tag)::type;
    using T = typename decltype(state_tag)::type;
    launch("selective_state_update_kernel", selective_state_update_kernel<S, T>,
           state_update_shape(p), p, static_cast<int>(state_update_lanes(p)));
  });
}

}  // namespace suffuse
