// The CUDA side's entries, for bind.cpp.
#pragma once

#include "ops/selective_scan/params.h"
#include "ops/selective_scan/update_params.h"

namespace suffuse {

// Floats of workspace that a call needs.
int64_t selective_scan_fwd_floats(const SelectiveScanParams& p);
int64_t selective_scan_bwd_floats(const SelectiveScanParams& p);

// Run on a cudaStream_t. Throw Error.
void selective_scan_fwd_cuda(const SelectiveScanParams& p, void* stream);
void selective_scan_bwd_cuda(const SelectiveScanGradParams& g, void* stream);
void selective_state_update_cuda(const StateUpdateParams& p, void* stream);

}  // namespace suffuse
