// Scans of few channels: the CPU takes time on the lanes instead of channels, in panels of steps of
// which each lane has a run of adjacent ones. Of the params, chunk is kScanPanel then, chunk_states
// [batch, channel, panel of the scan, state]; B and C are not packed.
#pragma once

#include "ops/selective_scan/params.h"

namespace suffuse {

constexpr int64_t kScanPanel = 256;

inline int64_t scan_panels(const SelectiveScanParams& p) {
  return (p.length + kScanPanel - 1) / kScanPanel;
}

// Parts of a group's channels and of the states, enough for many cores; by shape alone.
struct PanelParts {
  int64_t channels, states;
};
inline PanelParts scan_panel_parts(const SelectiveScanParams& p) {
  const auto within = [](int64_t wanted, int64_t most) {
    return wanted > most ? (most > 1 ? most : 1) : wanted;
  };
  const int64_t pairs = p.batch * p.groups > 0 ? p.batch * p.groups : 1;
  PanelParts parts;
  parts.channels = within((kScanUnits + pairs - 1) / pairs, p.channels / p.groups);
  const int64_t units = pairs * parts.channels;
  parts.states = within((kScanUnits + units - 1) / units, (p.states + 3) / 4);
  return parts;
}
inline int64_t scan_panel_units(const SelectiveScanParams& p) {
  const PanelParts parts = scan_panel_parts(p);
  return p.batch * p.groups * parts.channels * parts.states;
}

// Whether panels take less time, on two cores if there is work for two. Measured, a step and state
// of a vector costs two fifths more in panels.
inline bool scan_takes_panels(const SelectiveScanParams& p) {
  const int64_t blocks = p.batch * scan_blocks(p);
  if (p.states == 0) return false;
  const auto cores = [](int64_t units) { return units > 1 ? 2 : 1; };
  const int64_t in_panels = 7 * p.batch * p.channels * scan_panels(p) * kScanPanel;
  const int64_t in_blocks = 5 * blocks * kScanLanes * p.length;
  return in_panels * cores(blocks * scan_parts(p)) < in_blocks * cores(scan_panel_units(p));
}

// What parts of the states leave to be added up: [batch, channel, part, row, panel, kScanPanel].
inline int64_t scan_panel_rows_size(const SelectiveScanParams& p, int64_t rows) {
  const int64_t parts = scan_panel_parts(p).states;
  if (parts == 1) return 0;
  return p.batch * p.channels * parts * rows * scan_panels(p) * kScanPanel;
}
// dB or dC of a part of a group's channels: [panel, state, kScanPanel].
inline int64_t scan_panel_sums_size(const SelectiveScanParams& p) {
  return scan_panels(p) * p.states * kScanPanel;
}

}  // namespace suffuse
