// C entries of the linear recurrence along rows of float.
#include "emulated/scan_rows_run.h"

using namespace suffuse;

EMULATED void emulated_linear_scan(const void* a, const void* x, const float* start, void* h,
                                   float* last, int64_t rows, int64_t length, int64_t vectors,
                                   int64_t reverse, void* workspace) {
  const ScanCall call = {a, x, start, h, last, rows, length, vectors, reverse, workspace};
  run<float>(call);
}

EMULATED int64_t emulated_linear_scan_workspace(int64_t rows, int64_t length) {
  return workspace_bytes<float>(rows, length);
}
