// The last kernels of selective_scan's backward pass: partial sums to gradients, always in the same
// order.
#pragma once

#include "cuda/groups.cuh"
#include "ops/selective_scan/cuda/config.h"

namespace suffuse {

// to[i] = the sum of from[row][i] over rows.
struct ScanRowSum {
  const float* from;
  float* to;
  int64_t size;
};
struct ScanRowSums {
  static constexpr int kMost = 5;
  ScanRowSum sums[kMost];
  int32_t count;
  int64_t rows;
};

inline int64_t scan_row_sums_size(const ScanRowSums& all) {
  int64_t size = 0;
  for (int i = 0; i < all.count; i++) size += all.sums[i].size;
  return size;
}

__global__ void __launch_bounds__(kScanThreads) selective_scan_rows_kernel(const ScanRowSums all) {
  int64_t i = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
#pragma unroll
  for (int k = 0; k < ScanRowSums::kMost; k++) {
    if (k >= all.count) return;
    const ScanRowSum& sum = all.sums[k];
    if (i < sum.size) {
      float total = 0.f;
      for (int64_t row = 0; row < all.rows; row++) total += sum.from[row * sum.size + i];
      sum.to[i] = total;
      return;
    }
    i -= sum.size;
  }
}

// Quads of steps of [batch, group, state] that dB or dC have.
inline int64_t scan_projection_quads(const SelectiveScanParams& p) {
  return p.batch * p.groups * p.states * scan_windows(p) * (kScanSteps / 4);
}

// to [batch, group, state, time] from [batch, group, part, state, step], a thread for each quad of
// steps.
template <class S>
__global__ void __launch_bounds__(kScanThreads)
    selective_scan_projection_kernel(const float* from, S* to, int64_t pairs, int64_t states,
                                     int64_t length, int parts) {
  const int64_t steps = (length + kScanSteps - 1) / kScanSteps * kScanSteps;
  const int64_t quad = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  const int64_t t = quad * 4 % steps, row = quad * 4 / steps;  // of pairs x states
  if (row >= pairs * states || t >= length) return;
  const int64_t part = states * steps;
  const float* data = from + row / states * parts * part + row % states * steps + t;
  float4 sum = {0.f, 0.f, 0.f, 0.f};
  for (int i = 0; i < parts; i++) {
    const float4 mine = gpu::load_vector_once<float4>(data + i * part);
    sum = {sum.x + mine.x, sum.y + mine.y, sum.z + mine.z, sum.w + mine.w};
  }
  const float values[] = {sum.x, sum.y, sum.z, sum.w};
  const Group group = {t, 0, length - t < 4 ? static_cast<int>(length - t) : 4};
  store_group(to + row * length, group, values);
}

}  // namespace suffuse
