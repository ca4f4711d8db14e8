// Shapes of the matrix product of gemm_sm90.cuh: what its launcher and its tests share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "cuda/launch_shape.h"
#include "cuda/swizzle.h"
#include "cuda/tensor_map.h"

namespace suffuse {

// C[m, n] (O) = sum_k A[m, k] B[n, k] (S), sums in f32. kA, kB: Major::k where K is contiguous,
// Major::mn where M or N is. S: bfloat16, float16, or float, which is rounded to tf32 and K-major.
// A block makes tiles of 64 kConsumers x kColumns, with kStages tiles of 128 bytes of K in flight.
template <class S_, class O_, gpu::Major kA_, gpu::Major kB_, int kColumns_, int kConsumers_,
          int kStages_>
struct GemmSm90 {
  using S = S_;
  using O = O_;
  static constexpr gpu::Major kA = kA_, kB = kB_;
  static constexpr int kColumns = kColumns_, kConsumers = kConsumers_, kStages = kStages_;
  static constexpr int kRows = 64 * kConsumers, kDepth = 128 / static_cast<int>(sizeof(S));
  static constexpr int kThreads = 128 * (1 + kConsumers);  // one warpgroup loads
  static constexpr int kStageBytes = (kRows + kColumns) * 128;
  static constexpr int kBarrierBytes = 1024;
  static constexpr int kSharedBytes =
      kStages * kStageBytes + kRows * kColumns * static_cast<int>(sizeof(O)) + kBarrierBytes;
};

struct GemmSizes {
  int32_t m, n, k;  // 1 or more
};

template <class Gemm>
LaunchShape gemm_sm90_shape(const GemmSizes& sizes, int multiprocessors) {
  const int64_t rows = (sizes.m + Gemm::kRows - 1) / Gemm::kRows;
  const int64_t columns = (sizes.n + Gemm::kColumns - 1) / Gemm::kColumns;
  return {std::min<int64_t>(rows * columns, multiprocessors), Gemm::kThreads, Gemm::kSharedBytes};
}

struct GemmMaps {
  TensorLayout a, b, c;
};

template <class T>
constexpr TensorElement tensor_element(bool tensor_core_operand) {
  if (sizeof(T) == 4) return tensor_core_operand ? TensorElement::tf32 : TensorElement::f32;
  return std::is_same_v<T, bfloat16> ? TensorElement::bf16 : TensorElement::f16;
}

// Rows of A, B and C are a_row, b_row and c_row bytes apart.
template <class Gemm>
GemmMaps gemm_sm90_maps(const GemmSizes& sizes, const void* a, int64_t a_row, const void* b,
                        int64_t b_row, void* c, int64_t c_row) {
  // Boxes as OperandTile has them: rows of 128 bytes, or the whole of a narrower tile.
  const auto layout = [](const void* p, TensorElement element, int rows, int columns,
                         int64_t row_bytes, int box_rows, int tile_columns) {
    const int box_bytes = std::min(128, tile_columns * tensor_element_bytes(element));
    return matrix_layout(p, element, rows, columns, row_bytes, box_rows,
                         box_bytes / tensor_element_bytes(element),
                         gpu::swizzle_of_span(box_bytes));
  };
  const auto operand = [&](const void* p, int64_t row_bytes, gpu::Major major, int extent,
                           int tile) {
    constexpr TensorElement kElement = tensor_element<typename Gemm::S>(true);
    return major == gpu::Major::k
               ? layout(p, kElement, extent, sizes.k, row_bytes, tile, Gemm::kDepth)
               : layout(p, kElement, sizes.k, extent, row_bytes, Gemm::kDepth, tile);
  };
  return {operand(a, a_row, Gemm::kA, sizes.m, Gemm::kRows),
          operand(b, b_row, Gemm::kB, sizes.n, Gemm::kColumns),
          layout(c, tensor_element<typename Gemm::O>(false), sizes.m, sizes.n, c_row, 64,
                 Gemm::kColumns)};
}

}  // namespace suffuse
