// How the CUDA kernels of linear_scan are launched: plain functions of the params.
#pragma once

#include <cstdint>

#include "cuda/launch_shape.h"
#include "ops/linear_scan/cuda/number.h"
#include "ops/linear_scan/params.h"

namespace suffuse {

// A block for each row, of one warp where rows are short; or a block for each chunk of a row, where
// there are too few rows to fill a card.
enum class LinearScanForm { short_rows, rows, split };

constexpr int kLinearScanThreads = 128, kLinearScanShortThreads = 32;

// Steps that a thread has at once: 64 bytes, but no more than 16.
SUFFUSE_HD constexpr int linear_scan_items(int64_t bytes) {
  return bytes <= 4 ? 16 : static_cast<int>(64 / bytes);
}

// Chunks that every row is split into, wherever its first window starts: the last may lie behind
// its end.
SUFFUSE_HD constexpr int64_t linear_scan_chunks(int64_t length, int64_t bytes) {
  const int64_t tile = kLinearScanThreads * linear_scan_items(bytes),
                most = length + 32 / bytes - 1;
  return (most + tile - 1) / tile;
}

inline int64_t linear_scan_bytes(const LinearScanParams& p) {
  return sizeof_dtype(p.dtype) * (p.complex ? 2 : 1);
}

inline LinearScanForm linear_scan_form(const LinearScanParams& p) {
  constexpr int64_t kEnoughRows = 512;  // four blocks on each multiprocessor of a large card
  const int64_t bytes = linear_scan_bytes(p), items = linear_scan_items(bytes);
  const int64_t rows = p.batch * p.channels, chunks = linear_scan_chunks(p.length, bytes);
  if (p.length <= 2 * kLinearScanShortThreads * items) return LinearScanForm::short_rows;
  const bool long_rows = p.length > 2 * kLinearScanThreads * items;
  const bool few = rows < kEnoughRows && rows * chunks <= INT32_MAX;
  return long_rows && few ? LinearScanForm::split : LinearScanForm::rows;
}

// Calls fn(TypeTag<A>, TypeTag<S>) with the types of a, and of x and h, in memory.
template <class Fn>
void visit_linear_scan(const LinearScanParams& p, Fn&& fn) {
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if constexpr (sizeof(S) > 2) {
      if (p.complex) return fn(TypeTag<Complex<S>>(), TypeTag<Complex<S>>());
    } else {
      if (p.a_dtype == DType::f32) return fn(TypeTag<float>(), tag);
    }
    fn(tag, tag);
  });
}

}  // namespace suffuse
