// The CPU kernels of selective_scan.
#pragma once

#include "common/isa.h"
#include "ops/selective_scan/params.h"
#include "ops/selective_scan/update_params.h"

namespace suffuse {
// At least so many bytes of the calling thread's own, at a cache line; valid until its next call.
// Defined in bind.cpp, which is compiled for every CPU.
void* selective_scan_scratch(int64_t bytes);
}  // namespace suffuse

// B and C of the units [begin, end) of batch x groups x tiles of kScanSteps, time before state.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_pack_range,
                       (const SelectiveScanParams& p, int64_t begin, int64_t end), (p, begin, end))
// The units [begin, end) of batch x blocks of channels x parts of the states.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_fwd_range,
                       (const SelectiveScanParams& p, int64_t begin, int64_t end), (p, begin, end))
// Where there are several such parts, their results: the units [begin, end) of batch x blocks x
// windows.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_join_range,
                       (const SelectiveScanParams& p, int64_t begin, int64_t end), (p, begin, end))
// Where time is on the lanes: the units [begin, end) of scan_panel_units.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_panel_fwd_range,
                       (const SelectiveScanParams& p, int64_t begin, int64_t end), (p, begin, end))
// And where the states have several parts then, their results: the units [begin, end) of batch x
// channels x panels.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_panel_join_range,
                       (const SelectiveScanParams& p, int64_t begin, int64_t end), (p, begin, end))
// The units [begin, end) of batch x groups x parts x parts of the states.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_bwd_range,
                       (const SelectiveScanGradParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
// Where there are several parts of the states, their gradients: the units [begin, end) of batch x
// blocks.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_join_bwd_range,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// The same in panels: the units of scan_panel_units; of batch x channels where the states have
// parts; and dB and dC of varying B and C, of batch x groups x panels.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_panel_bwd_range,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
SUFFUSE_DECLARE_KERNEL(void, selective_scan_panel_join_bwd_range,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
SUFFUSE_DECLARE_KERNEL(void, selective_scan_panel_project_range,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// dB and dC of varying B and C, of the units [begin, end) of batch x groups x tiles of kScanSteps.
SUFFUSE_DECLARE_KERNEL(void, selective_scan_project_range,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// The other sums, over the batch, of the channels [begin, end).
SUFFUSE_DECLARE_KERNEL(void, selective_scan_add_rows,
                       (const SelectiveScanGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// One step, of the units [begin, end) of batch x blocks of kScanLanes channels.
SUFFUSE_DECLARE_KERNEL(void, selective_state_update_range,
                       (const StateUpdateParams& p, int64_t begin, int64_t end), (p, begin, end))
