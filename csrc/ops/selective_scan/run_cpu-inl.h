// What runs on the CPU, with its workspace. Part of bind.cpp, which has included torch.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/panels.h"

namespace suffuse {
namespace {

constexpr bool kKeepsUngated = false;

std::vector<int64_t> saved_shape(const SelectiveScanParams& p) {
  if (scan_takes_panels(p)) return {p.batch, p.channels, scan_panels(p), p.states};
  return {p.batch, scan_blocks(p), scan_chunks(p), p.states, kScanLanes};
}

void pack(const SelectiveScanParams& p) {
  if (!p.b.varying && !p.c.varying) return;
  const int64_t tiles = (p.length + kScanSteps - 1) / kScanSteps;
  torch::stable::parallel_for(0, p.batch * p.groups * tiles, 64, [&](int64_t begin, int64_t end) {
    selective_scan_pack_range(p, begin, end);
  });
}

// Units of a parallel loop that are worth a task of their own, each of so many state updates.
int64_t grain(int64_t updates) { return 200000 / (updates + 1) + 1; }

// Room for what parts of the states leave, that many numbers.
Tensor states_parts(SelectiveScanParams& p, const Tensor& u, int64_t numbers) {
  const int64_t size[] = {numbers};
  Tensor memory = empty(u, shape(size), wide_type(p.dtype));
  p.workspace = memory.mutable_data_ptr();
  return memory;
}

// What an update costs in panels: a unit has one channel in a register, not kScanLanes.
constexpr int64_t kPanelCost = 4;

void run_panels(SelectiveScanParams& p, const Tensor& u) {
  const Tensor parts = states_parts(p, u, scan_panel_rows_size(p, 1));
  const int64_t units = scan_panel_units(p), results = p.batch * p.channels * scan_panels(p);
  torch::stable::parallel_for(
      0, units, grain(kPanelCost * p.batch * p.channels * p.length * p.states / units),
      [&](int64_t begin, int64_t end) { selective_scan_panel_fwd_range(p, begin, end); });
  if (scan_panel_parts(p).states == 1) return;
  torch::stable::parallel_for(
      0, results, grain(kScanPanel * scan_panel_parts(p).states),
      [&](int64_t begin, int64_t end) { selective_scan_panel_join_range(p, begin, end); });
}

void run_forward(SelectiveScanParams& p, const Tensor& u) {
  if (scan_takes_panels(p)) return run_panels(p, u);
  const Tensor parts = states_parts(p, u, scan_parts_size(p, 1));
  pack(p);
  torch::stable::parallel_for(
      0, p.batch * scan_blocks(p) * scan_parts(p),
      grain(kScanLanes * p.length * p.states / scan_parts(p)),
      [&](int64_t begin, int64_t end) { selective_scan_fwd_range(p, begin, end); });
  if (scan_parts(p) == 1) return;
  torch::stable::parallel_for(
      0, p.batch * scan_blocks(p) * scan_windows(p), grain(kScanLanes * kScanSteps * scan_parts(p)),
      [&](int64_t begin, int64_t end) { selective_scan_join_range(p, begin, end); });
}

// Enough units for many cores where the batch and the groups are few; by shape alone, for the order
// of addition hangs on it.
int64_t parts_of_group(const SelectiveScanParams& p) {
  constexpr int64_t kUnits = 8;
  const int64_t pairs = std::max<int64_t>(1, p.batch * p.groups);
  return std::clamp<int64_t>(kUnits / pairs, 1, std::max<int64_t>(1, scan_blocks_of_group(p)));
}

// Room for what is added up to gradients. Where the batch has one entry, the rows of it are the
// gradients.
Tensor sums_of(SelectiveScanGradParams& g, const Tensor& u) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = p.batch * p.channels, matrix = row * p.states;
  const int64_t projected = p.batch * p.groups * g.parts *
                            (scan_takes_panels(p) ? scan_panel_sums_size(p) : scan_sums_size(p));
  const bool rows = p.batch != 1;
  const int64_t sizes[] = {rows ? matrix : 0, rows ? row : 0, rows ? row : 0,
                           p.b.varying ? projected
                           : rows      ? matrix
                                       : 0,
                           p.c.varying ? projected
                           : rows      ? matrix
                                       : 0};
  void** const sums[] = {&g.sums_a, &g.sums_skip, &g.sums_bias, &g.sums_b, &g.sums_c};
  void* const results[] = {g.grad_a, g.grad_skip, g.grad_bias, g.grad_b, g.grad_c};
  const int64_t total[] = {sizes[0] + sizes[1] + sizes[2] + sizes[3] + sizes[4]};
  Tensor memory = empty(u, shape(total), wide_type(p.dtype));
  char* next = static_cast<char*>(memory.mutable_data_ptr());
  for (int i = 0; i < 5; i++) {
    *sums[i] = sizes[i] ? next : results[i];
    next += sizes[i] * memory.element_size();
  }
  return memory;
}

void run_panels_backward(SelectiveScanGradParams& g, const Tensor& u) {
  SelectiveScanParams& p = g.forward;
  const Tensor parts = states_parts(p, u, scan_panel_rows_size(p, 3));
  const int64_t units = scan_panel_units(p), work = p.batch * p.channels * p.length * p.states;
  torch::stable::parallel_for(
      0, units, grain(3 * kPanelCost * work / units),
      [&](int64_t begin, int64_t end) { selective_scan_panel_bwd_range(g, begin, end); });
  if (scan_panel_parts(p).states > 1) {
    torch::stable::parallel_for(
        0, p.batch * p.channels, grain(p.length * scan_panel_parts(p).states),
        [&](int64_t begin, int64_t end) { selective_scan_panel_join_bwd_range(g, begin, end); });
  }
  torch::stable::parallel_for(
      0, p.batch * p.groups * scan_panels(p), grain(g.parts * kScanPanel * p.states),
      [&](int64_t begin, int64_t end) { selective_scan_panel_project_range(g, begin, end); });
}

void run_blocks_backward(SelectiveScanGradParams& g, const Tensor& u) {
  SelectiveScanParams& p = g.forward;
  const Tensor parts = states_parts(p, u, scan_parts_size(p, 3));
  pack(p);
  torch::stable::parallel_for(
      0, p.batch * p.groups * g.parts * scan_parts(p), 1,
      [&](int64_t begin, int64_t end) { selective_scan_bwd_range(g, begin, end); });
  if (scan_parts(p) > 1) {
    torch::stable::parallel_for(0, p.batch * scan_blocks(p), 1, [&](int64_t begin, int64_t end) {
      selective_scan_join_bwd_range(g, begin, end);
    });
  }
  const int64_t tiles = p.batch * p.groups * scan_windows(p);
  torch::stable::parallel_for(
      0, tiles, grain(g.parts * kScanSteps * p.states),
      [&](int64_t begin, int64_t end) { selective_scan_project_range(g, begin, end); });
}

void run_backward(SelectiveScanGradParams& g, const Tensor& u) {
  const SelectiveScanParams& p = g.forward;
  const bool panels = scan_takes_panels(p);
  g.parts = panels ? scan_panel_parts(p).channels : parts_of_group(p);
  const Tensor sums = sums_of(g, u);
  if (panels) {
    run_panels_backward(g, u);
  } else {
    run_blocks_backward(g, u);
  }
  if (p.batch != 1) selective_scan_add_rows(g, 0, p.channels);
}

void run_update(const StateUpdateParams& p, const Tensor&, const Tensor& state) {
  for (int64_t b = 0; p.indices && b < p.batch; b++) {
    if (p.indices[b] < state.size(0)) continue;
    fail("selective_state_update", "state_batch_indices",
         "slots below " + std::to_string(state.size(0)) + " of state",
         std::to_string(p.indices[b]));
  }
  const int64_t blocks = (p.heads * p.places + kScanLanes - 1) / kScanLanes;
  torch::stable::parallel_for(
      0, p.batch * blocks, grain(kScanLanes * p.states),
      [&](int64_t begin, int64_t end) { selective_state_update_range(p, begin, end); });
}

}  // namespace
}  // namespace suffuse
