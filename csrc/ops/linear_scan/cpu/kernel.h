// The CPU kernel of linear_scan.
#pragma once

#include "common/isa.h"
#include "ops/linear_scan/params.h"

// The units [begin, end) of batch x blocks of channels.
SUFFUSE_DECLARE_KERNEL(void, linear_scan_range,
                       (const LinearScanParams& p, int64_t begin, int64_t end), (p, begin, end))
