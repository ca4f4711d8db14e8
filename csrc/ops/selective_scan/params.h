// What the selective_scan kernels are given. Strides count elements.
//
//   delta'_t = softplus(delta_t + bias)          (softplus and bias where asked for)
//   h_t = exp(delta'_t A) h_{t-1} + delta'_t B_t u_t
//   out_t = (C_t . h_t + skip u_t) silu(z_t)      (skip and gate where given)
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/macros.h"

namespace suffuse {

// A tensor [batch, channel, time] of the call's dtype; null where there is none.
struct ScanRows {
  const void* data;
  int64_t batch, channel, time;
};

// B or C. Varying: [batch, group, state, time] of the call's dtype, which the CPU packs to [batch,
// group, time, state] in the arithmetic's type before the scan; else [channel, state] in the
// arithmetic's type.
struct ScanProjection {
  const void* data;
  int64_t batch, group, state, time;
  void* packed;
  bool varying;
};

struct SelectiveScanParams {
  int64_t batch, channels, length, states, groups;
  ScanRows u, delta, z;
  ScanProjection b, c;

  // In the arithmetic's type: float, or double for f64.
  const void* a;            // [channels, states]
  const void *skip, *bias;  // [channels] or null
  const void* initial;      // [batch, channels, states] or null

  const int32_t*
      sequence;  // [batch, length] contiguous or null: the state restarts where it changes
  bool softplus, reverse;
  DType dtype;

  // [batch, channels, length] contiguous; ungated, before the gate, or null: CUDA alone keeps it
  // for the backward pass
  void *out, *ungated;
  void* last;  // [batch, channels, states]
  // The state before each chunk, or null. CPU: [batch, blocks, chunks, states, kScanLanes]; CUDA:
  // [batch, windows, channels, states].
  void* chunk_states;
  int64_t chunk;  // steps of one, a multiple of kScanSteps
  // CUDA: of as many floats as the launcher asks for. CPU: what scan_parts_size says, for parts of
  // the states.
  void* workspace;
};

struct SelectiveScanGradParams {
  SelectiveScanParams forward;
  ScanRows grad_out;
  const void* grad_last;                 // [batch, channels, states] or null
  void *grad_u, *grad_delta, *grad_z;    // [batch, channels, length] contiguous
  void* grad_initial;                    // [batch, channels, states]
  void *grad_a, *grad_skip, *grad_bias;  // [channels, states], [channels]
  // Like B and C: varying [batch, groups, states, length] of the call's dtype, else [channels,
  // states] in the arithmetic's type.
  void *grad_b, *grad_c;
  // What is added up to those five, in the arithmetic's type and an order that depends on the shape
  // alone. CPU: [batch, channels, states] and [batch, channels]; of varying B and C [batch, group,
  // part, block of scan_sum_blocks, step of whole windows, kScanSumStates]. CUDA: cut from the
  // workspace by the launcher.
  void *sums_a, *sums_skip, *sums_bias, *sums_b, *sums_c;
  int64_t parts;  // of a group's blocks
};

// Channels are taken in blocks, time in tiles; a block lies in one group.
constexpr int64_t kScanLanes = 16, kScanSteps = 16;
constexpr int64_t kMostScanStates = 256;  // on CUDA

inline int64_t scan_blocks_of_group(const SelectiveScanParams& p) {
  return (p.channels / p.groups + kScanLanes - 1) / kScanLanes;
}
inline int64_t scan_blocks(const SelectiveScanParams& p) {
  return p.groups * scan_blocks_of_group(p);
}
inline int64_t scan_chunks(const SelectiveScanParams& p) {
  return (p.length + p.chunk - 1) / p.chunk;
}
// Windows of kScanSteps steps, which start at multiples of that in time.
SUFFUSE_HD inline int64_t scan_windows(const SelectiveScanParams& p) {
  return (p.length + kScanSteps - 1) / kScanSteps;
}

// Where batch and blocks are few, the CPU takes the states of a block in parts of their own,
// multiples of so many; by shape alone, for the order of addition hangs on it.
constexpr int64_t kScanUnits = 8;
inline int64_t scan_part_states(const SelectiveScanParams& p) {
  // Narrow parts of many states read half of every cache line of B and C.
  return p.states < 16 ? 4 : p.states < 32 ? 8 : 16;
}
inline int64_t scan_parts(const SelectiveScanParams& p) {
  const int64_t units = p.batch * scan_blocks(p);
  if (units == 0 || units >= kScanUnits) return 1;
  const int64_t least = scan_part_states(p), most = (p.states + least - 1) / least;
  const int64_t wanted = (kScanUnits + units - 1) / units;
  return most < 1 ? 1 : most < wanted ? most : wanted;
}
// The first state of a part, or, of the part behind the last, the number of states.
inline int64_t scan_part_begin(const SelectiveScanParams& p, int64_t part) {
  const int64_t least = scan_part_states(p), units = (p.states + least - 1) / least;
  const int64_t begin = part * units / scan_parts(p) * least;
  return begin < p.states ? begin : p.states;
}
// What the parts leave to be added up: [batch, block, part, row, step of whole windows,
// kScanLanes]; forwards the row C h, backwards also d(delta' u) and d(delta').
inline int64_t scan_parts_size(const SelectiveScanParams& p, int64_t rows) {
  if (scan_parts(p) == 1) return 0;
  return p.batch * scan_blocks(p) * scan_parts(p) * rows * scan_windows(p) * kScanSteps *
         kScanLanes;
}

// States whose dB and dC the CPU adds up together: blocks of four, then one of two and one of one.
constexpr int64_t kScanSumStates = 4;
inline int64_t scan_sum_blocks(const SelectiveScanParams& p) {
  return p.states / 4 + (p.states >> 1 & 1) + (p.states & 1);
}
inline int64_t scan_sums_size(const SelectiveScanParams& p) {
  return scan_sum_blocks(p) * scan_windows(p) * kScanSteps * kScanSumStates;
}
// Where those of a part of the states begin.
inline int64_t scan_sums_begin(const SelectiveScanParams& p, int64_t part) {
  if (part == scan_parts(p)) return scan_sums_size(p);
  return scan_part_begin(p, part) * scan_windows(p) * kScanSteps;
}

}  // namespace suffuse
