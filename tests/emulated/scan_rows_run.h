// Launches the linear recurrence along rows under the emulator.
#pragma once

#include "emulated/scan_rows.cuh"
#include "emulator/emulator.h"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {

template <class S, int kThreads, int kVectors, bool kReverse>
using Scan = LinearScan<S, kThreads, kVectors * 16 / sizeof(S), kReverse>;

template <class Kernel, class S>
void launch(const char* name, void (*kernel)(LinearScanParams<S>), int64_t blocks, int64_t threads,
            const LinearScanParams<S>& p) {
  emulator::launch(name, kernel, dim3(static_cast<unsigned>(blocks)),
                   dim3(static_cast<unsigned>(threads)), sizeof(typename Kernel::Shared), p);
}

template <class S, int kThreads, int kVectors, bool kReverse>
void run(const LinearScanParams<S>& p) {
  launch<Scan<S, kThreads, kVectors, kReverse>>(
      "linear_scan_kernel", linear_scan_kernel<S, kThreads, kVectors * 16 / sizeof(S), kReverse>,
      p.rows, kThreads, p);
}

// Each way to transpose vectors among lanes, and several numbers of warps.
template <class S, bool kReverse>
void run_vectors(const LinearScanParams<S>& p, int64_t vectors) {
  if constexpr (sizeof(S) == 4) {
    if (vectors == 1) return run<S, 160, 1, kReverse>(p);
    if (vectors == 4) return run<S, 64, 4, kReverse>(p);
  }
  if (vectors == 2) return run<S, 96, 2, kReverse>(p);
  run<S, 32, 8, kReverse>(p);
}

template <class S, bool kReverse>
void run_split(const LinearScanParams<S>& p) {
  using Kernel = Scan<S, 64, 2, kReverse>;
  launch<Kernel>("linear_scan_split_kernel",
                 linear_scan_split_kernel<S, 64, 32 / sizeof(S), kReverse>,
                 p.rows * Kernel::chunks(p.length), 64, p);
}

// What a C entry takes; a, x and h are of one type. vectors: of 16 bytes a thread. With a workspace
// rows are split over blocks.
struct ScanCall {
  const void *a, *x;
  const float* start;
  void* h;
  float* last;
  int64_t rows, length, vectors, reverse;
  void* workspace;
};
template <class S>
void run(const ScanCall& call) {
  const LinearScanParams<S> p = {static_cast<const S*>(call.a),
                                 static_cast<const S*>(call.x),
                                 call.start,
                                 static_cast<S*>(call.h),
                                 call.last,
                                 call.length,
                                 static_cast<int>(call.rows),
                                 call.workspace};
  if (p.workspace) return call.reverse ? run_split<S, true>(p) : run_split<S, false>(p);
  call.reverse ? run_vectors<S, true>(p, call.vectors) : run_vectors<S, false>(p, call.vectors);
}

// Of the workspace of rows that are split; zero before the call.
template <class S>
int64_t workspace_bytes(int64_t rows, int64_t length) {
  return 4 + LookBack<Affine<float>, ComposeAffine<float>>::workspace_bytes(
                 rows, Scan<S, 64, 2, false>::chunks(length));
}

}  // namespace suffuse
