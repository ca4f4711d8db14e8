// How selective_scan is cut for a GPU: plain functions of the params, for launchers, kernels and
// tests.
//
// A thread walks through time with the states of one channel that its lane has: `lanes` lanes make
// a channel, and lane i has the states i, lanes + i, 2 lanes + i ... A block takes some channels of
// one group, so that they share B and C, through one segment of time. What rows and tables hold is
// in windows of kScanSteps steps.
#pragma once

#include <cstdint>

#include "cuda/launch_shape.h"
#include "ops/selective_scan/params.h"

namespace suffuse {

constexpr int kScanThreads = 128, kScanWarps = kScanThreads / 32;

struct ScanCut {
  int32_t lanes;      // of a channel: 1 or 4 to 32, a power of two
  int32_t lane_bits;  // its logarithm
  int32_t states;     // of a lane
  int32_t channels;   // of a block at a time
  int32_t windows;    // in shared memory at a time (forward)
  int32_t segments;   // of time, scanned side by side after a first pass that finds their starts
  int32_t parts;      // of a group's channels, each of one block in every segment
  int32_t rounds;     // times `channels` of a part, one after another (backward)
  int32_t of_group;   // channels of a group
};

// Room for a B or C table: also the states that a lane has beyond the last.
SUFFUSE_HD inline int scan_table_rows(const ScanCut& cut) { return cut.states * cut.lanes; }

// Blocks that fill a large GPU, and segments of time where there are few: what they cost, a second
// pass over all, is worth it from four on.
constexpr int64_t kScanBlocks = 264, kLeastSegments = 4, kLeastWindowsOfSegment = 8;

inline int32_t scan_segments(int64_t blocks, int64_t windows) {
  const int64_t wanted = kScanBlocks / (blocks > 0 ? blocks : 1);
  const int64_t most = windows / kLeastWindowsOfSegment;
  const int64_t segments = wanted < most ? wanted : most;
  return segments < kLeastSegments ? 1 : static_cast<int32_t>(segments);
}

inline ScanCut scan_cut_of_states(const SelectiveScanParams& p) {
  ScanCut cut{};
  // A sector of states a row of lanes where there are as many, and two states a lane. Two lanes
  // would write to the same banks.
  cut.lane_bits = p.states <= 2    ? 0
                  : p.states <= 4  ? 2
                  : p.states <= 16 ? 3
                  : p.states <= 32 ? 4
                                   : 5;
  cut.lanes = 1 << cut.lane_bits;
  cut.states = static_cast<int32_t>((p.states + cut.lanes - 1) / cut.lanes);
  cut.channels = kScanThreads / cut.lanes;
  cut.of_group = static_cast<int32_t>(p.channels / p.groups);
  return cut;
}

inline ScanCut scan_forward_cut(const SelectiveScanParams& p) {
  constexpr int kFloats = 10240;  // of rows and tables
  ScanCut cut = scan_cut_of_states(p);
  const int floats = (3 * cut.channels + 2 * scan_table_rows(cut)) * static_cast<int>(kScanSteps);
  cut.windows = 4 * floats <= kFloats ? 4 : 2 * floats <= kFloats ? 2 : 1;
  cut.rounds = 1;
  cut.parts = static_cast<int32_t>((p.channels / p.groups + cut.channels - 1) / cut.channels);
  cut.segments = scan_segments(p.batch * p.groups * cut.parts, scan_windows(p));
  return cut;
}

// More rounds make fewer parts, and so fewer partial sums of dB and dC: at most as many as there
// are elements of u (twice that for both).
inline ScanCut scan_backward_cut(const SelectiveScanParams& p) {
  constexpr int64_t kEnoughBlocks = 1056;
  ScanCut cut = scan_cut_of_states(p);
  const int64_t pairs = p.batch * p.groups;
  const int64_t blocks = (p.channels / p.groups + cut.channels - 1) / cut.channels;
  const int64_t for_memory = (p.states + cut.channels - 1) / cut.channels;
  const int64_t for_fewer = pairs * blocks / kEnoughBlocks;
  const int64_t rounds = for_memory > for_fewer ? for_memory : for_fewer;
  cut.windows = 1;
  cut.rounds = static_cast<int32_t>(rounds > 1 ? rounds : 1);
  cut.parts = static_cast<int32_t>((blocks + cut.rounds - 1) / cut.rounds);
  cut.segments = scan_segments(pairs * cut.parts, scan_windows(p));
  return cut;
}

// Shared memory of the forward scan and of the first pass, as offsets in floats.
struct ScanTables {
  int delta, x, y;                          // [window][channel][step]
  int b, c;                                 // [window][state][step]
  int rate, state, constant_b, constant_c;  // [state of a lane][thread]
  int quad_b, quad_c;                       // [thread], of constant ones
  int restarts;                             // [window], bits
  int size;
};
inline ScanTables scan_tables(const ScanCut& cut) {
  const int steps = static_cast<int>(kScanSteps);
  const int rows = cut.windows * cut.channels * steps;
  const int tables = cut.windows * scan_table_rows(cut) * steps;
  const int own = cut.states * kScanThreads;
  ScanTables t{};
  t.x = t.delta + rows;
  t.y = t.x + rows;
  t.b = t.y + rows;
  t.c = t.b + tables;
  t.rate = t.c + tables;
  t.state = t.rate + own;
  t.constant_b = t.state + own;
  t.constant_c = t.constant_b + own;
  t.quad_b = t.constant_c + own;
  t.quad_c = t.quad_b + 4 * kScanThreads;
  t.restarts = t.quad_c + 4 * kScanThreads;
  t.size = t.restarts + cut.windows;
  return t;
}

// The same of the backward scan, for one window.
struct ScanGradTables {
  int delta, u, grad, to_x, to_delta;  // [channel][step]
  int b, c;                            // [state][step]
  // [state of a lane][thread]; those of B and C for constant ones
  int rate, start, carry, grad_a, constant_b, constant_c, grad_b, grad_c;
  int quad_b, quad_c;        // [thread], of constant ones
  int sums;                  // [warp][lane of a channel][dB of the steps, dC of the steps]
  int grad_skip, grad_bias;  // [channel]
  int restarts;
  int size;
};
inline ScanGradTables scan_grad_tables(const ScanCut& cut) {
  const int steps = static_cast<int>(kScanSteps);
  const int rows = cut.channels * steps, tables = scan_table_rows(cut) * steps;
  const int own = cut.states * kScanThreads;
  ScanGradTables t{};
  t.u = t.delta + rows;
  t.grad = t.u + rows;
  t.to_x = t.grad + rows;
  t.to_delta = t.to_x + rows + steps;  // in other banks than to_x
  t.b = t.to_delta + rows + steps;
  t.c = t.b + tables;
  t.rate = t.c + tables;
  t.start = t.rate + own;
  t.carry = t.start + own;
  t.grad_a = t.carry + own;
  t.constant_b = t.grad_a + own;
  t.constant_c = t.constant_b + own;
  t.grad_b = t.constant_c + own;
  t.grad_c = t.grad_b + own;
  t.quad_b = t.grad_c + own;
  t.quad_c = t.quad_b + 4 * kScanThreads;
  t.sums = t.quad_c + 4 * kScanThreads;
  t.grad_skip = t.sums + kScanWarps * cut.lanes * 2 * steps;
  t.grad_bias = t.grad_skip + cut.channels;
  t.restarts = t.grad_bias + cut.channels;
  t.size = t.restarts + 1;
  return t;
}

// Blocks of a scan kernel: segments, then parts, then groups, then the batch.
inline LaunchShape scan_shape(const SelectiveScanParams& p, const ScanCut& cut, int floats) {
  return {p.batch * p.groups * cut.parts * cut.segments, kScanThreads,
          static_cast<int32_t>(floats * sizeof(float))};
}

// A thread for each of so many elements.
inline LaunchShape scan_elements_shape(int64_t elements) {
  return {(elements + kScanThreads - 1) / kScanThreads, kScanThreads, 0};
}

// Parts of the workspace start at multiples of 16 bytes.
inline int64_t scan_aligned(int64_t floats) { return (floats + 3) / 4 * 4; }

// What the first pass leaves of a segment, [segment][batch][channel][state]: the state that it
// would end with from 0, which becomes the state that it starts with; and the factor that a state
// before it has in it, negative where the state restarts.
struct ScanSegments {
  float *states, *factors;
};
inline int64_t scan_segments_floats(const SelectiveScanParams& p, const ScanCut& cut) {
  return cut.segments > 1 ? scan_aligned(cut.segments * p.batch * p.channels * p.states) : 0;
}

inline int64_t scan_forward_floats(const SelectiveScanParams& p, const ScanCut& cut) {
  return 2 * scan_segments_floats(p, cut);
}

// What the backward scan leaves to be added up, in floats: of a varying B or C [batch, group, part,
// state, step of whole windows], of all else one row for each segment and batch entry.
struct ScanGradSums {
  int64_t matrix, row, b, c;
  int64_t size;  // of all: one matrix, two rows, b and c
};
inline ScanGradSums scan_grad_sums(const SelectiveScanParams& p, const ScanCut& cut) {
  const int64_t rows = cut.segments * p.batch;
  const int64_t varying = p.batch * p.groups * cut.parts * p.states * scan_windows(p) * kScanSteps;
  ScanGradSums s{};
  s.row = scan_aligned(rows * p.channels);
  s.matrix = scan_aligned(rows * p.channels * p.states);
  s.b = p.b.varying ? varying : s.matrix;
  s.c = p.c.varying ? varying : s.matrix;
  s.size = s.matrix + 2 * s.row + s.b + s.c;
  return s;
}
inline int64_t scan_backward_floats(const SelectiveScanParams& p, const ScanCut& cut) {
  return 2 * scan_segments_floats(p, cut) + scan_grad_sums(p, cut).size;
}

}  // namespace suffuse
