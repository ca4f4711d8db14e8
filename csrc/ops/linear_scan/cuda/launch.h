// The CUDA side's entry, for bind.cpp.
#pragma once

#include "ops/linear_scan/params.h"

namespace suffuse {

// int32 numbers, all 0, that linear_scan_cuda needs as its workspace.
int64_t linear_scan_workspace(const LinearScanParams& p);

// Runs the scan on a cudaStream_t; x and h have adjacent steps, a has them or is constant, and
// there is at least one row. Throws Error.
void linear_scan_cuda(const LinearScanParams& p, void* workspace, void* stream);

}  // namespace suffuse
