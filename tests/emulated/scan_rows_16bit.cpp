// C entries of the linear recurrence along rows of bfloat16 and float16.
#include "emulated/scan_rows_run.h"

using namespace suffuse;

EMULATED void emulated_linear_scan(const void* a, const void* x, const float* start, void* h,
                                   float* last, int64_t rows, int64_t length, int64_t vectors,
                                   int64_t reverse, void* workspace, int64_t is_float16) {
  const ScanCall call = {a, x, start, h, last, rows, length, vectors, reverse, workspace};
  is_float16 ? run<float16>(call) : run<bfloat16>(call);
}

EMULATED int64_t emulated_linear_scan_workspace(int64_t rows, int64_t length) {
  return workspace_bytes<bfloat16>(rows, length);
}
