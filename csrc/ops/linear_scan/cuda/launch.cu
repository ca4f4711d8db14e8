// Launches the CUDA kernels of linear_scan.
#include <string>

#include "common/error.h"
#include "cuda/launcher.cuh"
#include "ops/linear_scan/cuda/kernel.cuh"
#include "ops/linear_scan/cuda/launch.h"

namespace suffuse {

int64_t linear_scan_workspace(const LinearScanParams& p) { return linear_scan_workspace_words(p); }

void linear_scan_cuda(const LinearScanParams& p, void* workspace, void* stream) {
  if (p.batch * p.channels > INT32_MAX) {
    throw Error("linear_scan: x: expected less than 2^31 rows on CUDA, got " +
                std::to_string(p.batch * p.channels));
  }
  const Launcher launch("linear_scan", stream);
  visit_linear_scan(p, [&](auto a, auto x) {
    using A = typename decltype(a)::type;
    using S = typename decltype(x)::type;
    p.reverse ? with_linear_scan_kernel<A, S, true>(p, workspace, launch)
              : with_linear_scan_kernel<A, S, false>(p, workspace, launch);
  });
}

}  // namespace suffuse
