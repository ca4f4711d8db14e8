// The CPU kernel of linear_scan.
#pragma once

#include "common/isa.h"
#include "ops/linear_scan/params.h"

namespace suffuse {

// A call and what the CPU kernels share for it.
struct LinearScanWork : LinearScanParams {
  int64_t width;    // channels that are taken together; no channel's result depends on it
  void* workspace;  // of long rows: two numbers of every segment of every row, or null
};

constexpr int64_t kLinearScanLanes = 16;
// The states of a panel stay in the first cache.
constexpr int64_t kLinearScanPanel = 2048;

// Where channels are adjacent they are taken in panels.
inline bool linear_scan_in_panels(const LinearScanParams& p) {
  const auto adjacent = [](const LinearScanRows& rows) {
    return rows.channel == 1 && rows.time != 1;
  };
  return !p.complex && adjacent(p.x) && adjacent(p.h) && (p.a.time == 0 || adjacent(p.a));
}

// A panel reads memory in order if it is wide.
inline int64_t linear_scan_width(const LinearScanParams& p, int64_t threads) {
  if (!linear_scan_in_panels(p)) return kLinearScanLanes;
  const int64_t share = p.batch * p.channels / threads;
  const int64_t whole = (share + kLinearScanLanes - 1) / kLinearScanLanes * kLinearScanLanes;
  constexpr int64_t kLeast = 64;
  return whole < kLeast ? kLeast : whole < kLinearScanPanel ? whole : kLinearScanPanel;
}

inline int64_t linear_scan_units(const LinearScanWork& p) {
  return p.batch * ((p.channels + p.width - 1) / p.width);
}

// A few long rows, of adjacent steps, are taken in segments.
constexpr int64_t kLinearScanSegment = 64;
enum class LinearScanPhase { sum, chain, finish };

inline int64_t linear_scan_segments(const LinearScanParams& p) {
  return (p.length + kLinearScanSegment - 1) / kLinearScanSegment;
}
inline bool linear_scan_in_segments(const LinearScanParams& p) {
  const bool rows = p.x.time == 1 && p.h.time == 1 && p.a.time <= 1;
  const int64_t few = kLinearScanLanes;
  return rows && !p.sequence && p.batch * p.channels < few && p.length >= few * kLinearScanSegment;
}
// Blocks of a row's segments.
inline int64_t linear_scan_segment_blocks(const LinearScanParams& p) {
  return (linear_scan_segments(p) + kLinearScanLanes - 1) / kLinearScanLanes;
}

}  // namespace suffuse

// The units [begin, end): rows for the phase `chain`, else blocks of segments of each.
SUFFUSE_DECLARE_KERNEL(void, linear_scan_phase,
                       (const LinearScanWork& p, LinearScanPhase phase, int64_t begin, int64_t end),
                       (p, phase, begin, end))
// The units [begin, end) of linear_scan_units.
SUFFUSE_DECLARE_KERNEL(void, linear_scan_range,
                       (const LinearScanWork& p, int64_t begin, int64_t end), (p, begin, end))
