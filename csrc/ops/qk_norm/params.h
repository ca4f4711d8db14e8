// What the qk_norm kernels are given. Strides count elements; columns are adjacent.
//
//   y = x / sqrt(mean(x^2) + eps) * weight,  then its first `rotated` columns are rotated:
//   (y_i, y_j) <- (y_i cos - y_j sin, y_j cos + y_i sin)
//
// for j = i + rotated / 2, or interleaved i = 2 n, j = i + 1. Weights, their gradients, the tables
// and sums are in the arithmetic's type: float, or double for f64.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/macros.h"

namespace suffuse {

// A tensor [batch, time, head, column].
struct HeadRows {
  void* data;
  int64_t batch, time, head;
};

// Queries, or keys.
struct QkNormHeads {
  HeadRows x, out;
  int64_t heads;
  const void* weight;  // [columns] or null: 1
};

struct QkNormParams {
  static constexpr int kSides = 2;  // queries and keys

  int64_t batch, length, columns;
  QkNormHeads sides[kSides];
  // The tables [length, rotated / 2]: the distance of rows, and of the batch's tables or 0.
  const void *cos, *sin;
  int64_t rotated, table_row, table_batch;
  double eps;
  bool interleaved;
  DType dtype;
};

struct QkNormGradParams {
  QkNormParams forward;  // out: not used
  HeadRows grad_out[QkNormParams::kSides], grad_x[QkNormParams::kSides];
  void* grad_weight[QkNormParams::kSides];  // [columns], or null where there is no weight
  // Sums over parts of the tokens, to be added up; how they lie is the device's own matter.
  void* partials;
};

}  // namespace suffuse
