// Which kernels a call runs, in order: what the launcher and the emulator's tests share. `launch`
// takes a name, a kernel, a shape and the kernel's arguments.
#pragma once

#include "ops/selective_scan/cuda/backward.cuh"
#include "ops/selective_scan/cuda/segments.cuh"
#include "ops/selective_scan/cuda/sums.cuh"

namespace suffuse {

// Calls fn(TypeTag<S>) with the storage type; float64 has no kernel.
template <class Fn>
void visit_scan(DType dtype, Fn&& fn) {
  visit_dtype(dtype, [&](auto tag) {
    if constexpr (sizeof(typename decltype(tag)::type) < 8) fn(tag);
  });
}

// The first pass, where time is in segments: their starts, or null where there is one. `memory` is
// moved past what it takes of the workspace.
template <class S, bool kBackward, class Launch>
const float* scan_segments_pass(const SelectiveScanParams& p, const ScanCut& cut,
                                const ScanRows& grad_out, const void* outer, float*& memory,
                                Launch&& launch) {
  if (cut.segments == 1) return nullptr;
  const int64_t floats = scan_segments_floats(p, cut), states = p.batch * p.channels * p.states;
  const ScanTables t = scan_tables(cut);
  const ScanSegments segments{memory, memory + floats};
  memory += 2 * floats;
  launch("selective_scan_segments_kernel", selective_scan_segments_kernel<S, kBackward>,
         scan_shape(p, cut, t.size), p, cut, t, grad_out, segments);
  launch("selective_scan_starts_kernel", selective_scan_starts_kernel<kBackward>,
         scan_elements_shape(states), segments, states, static_cast<int>(cut.segments),
         static_cast<const float*>(outer));
  return segments.states;
}

template <class S, class Launch>
void scan_forward_passes(const SelectiveScanParams& p, const ScanCut& cut, Launch&& launch) {
  if (p.batch * p.channels == 0) return;
  float* memory = static_cast<float*>(p.workspace);
  const float* starts = scan_segments_pass<S, false>(p, cut, ScanRows{}, p.initial, memory, launch);
  const ScanTables t = scan_tables(cut);
  launch("selective_scan_kernel", selective_scan_kernel<S>, scan_shape(p, cut, t.size), p, cut, t,
         starts);
}

// Where a call's partial sums are in its workspace.
inline SelectiveScanGradParams scan_with_sums(SelectiveScanGradParams g, const ScanGradSums& size,
                                              float* memory) {
  void** const places[] = {&g.sums_a, &g.sums_skip, &g.sums_bias, &g.sums_b, &g.sums_c};
  const int64_t sizes[] = {size.matrix, size.row, size.row, size.b, size.c};
  for (int i = 0; i < 5; i++) {
    *places[i] = memory;
    memory += sizes[i];
  }
  return g;
}

template <class S, class Launch>
void scan_sum_passes(const SelectiveScanGradParams& g, const ScanCut& cut, Launch&& launch) {
  const SelectiveScanParams& p = g.forward;
  ScanRowSums rows{};
  rows.rows = cut.segments * p.batch;
  const auto add = [&](const void* from, void* to, int64_t size) {
    rows.sums[rows.count++] = {static_cast<const float*>(from), static_cast<float*>(to), size};
  };
  add(g.sums_a, g.grad_a, p.channels * p.states);
  add(g.sums_skip, g.grad_skip, p.channels);
  add(g.sums_bias, g.grad_bias, p.channels);
  const auto project = [&](const ScanProjection& projection, const void* from, void* to) {
    if (!projection.varying) return add(from, to, p.channels * p.states);
    const int64_t quads = scan_projection_quads(p);
    if (quads == 0) return;
    launch("selective_scan_projection_kernel", selective_scan_projection_kernel<S>,
           scan_elements_shape(quads), static_cast<const float*>(from), static_cast<S*>(to),
           p.batch * p.groups, p.states, p.length, static_cast<int>(cut.parts));
  };
  project(p.b, g.sums_b, g.grad_b);
  project(p.c, g.sums_c, g.grad_c);
  const int64_t size = scan_row_sums_size(rows);
  if (size > 0) {
    launch("selective_scan_rows_kernel", selective_scan_rows_kernel, scan_elements_shape(size),
           rows);
  }
}

template <class S, class Launch>
void scan_backward_passes(const SelectiveScanGradParams& given, const ScanCut& cut,
                          Launch&& launch) {
  const SelectiveScanParams& p = given.forward;
  float* memory = static_cast<float*>(p.workspace);
  const bool any = p.batch * p.channels > 0;
  const float* ends = nullptr;
  if (any) {
    ends = scan_segments_pass<S, true>(p, cut, given.grad_out, given.grad_last, memory, launch);
  }
  const SelectiveScanGradParams g = scan_with_sums(given, scan_grad_sums(p, cut), memory);
  if (any) {
    const ScanGradTables t = scan_grad_tables(cut);
    launch("selective_scan_backward_kernel", selective_scan_backward_kernel<S>,
           scan_shape(p, cut, t.size), g, cut, t, ends);
  }
  scan_sum_passes<S>(g, cut, launch);
}

}  // namespace suffuse
