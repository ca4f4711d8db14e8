// What the rotary kernels are given. Strides count elements; columns are adjacent.
//
//   (x_i, x_j) <- (x_i cos - x_j sin, x_j cos + x_i sin)
//
// for the pairs i, j of a head's first `rotated` columns: j = i + rotated / 2, or interleaved
// i = 2 n, j = i + 1. The other columns are copied.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/macros.h"

namespace suffuse {

// A tensor [batch, time, head, column].
struct RotaryRows {
  void* data;
  int64_t batch, time, head;
};

struct RotaryParams {
  int64_t batch, length, heads;
  int64_t columns, rotated;
  RotaryRows x, out;  // out may be x itself
  // The tables [positions, rotated / 2]: the distance of rows, and of the batch's tables or 0.
  const void *cos, *sin;
  int64_t positions, table_row, table_batch;
  // Where the first token of a batch entry, or of a sequence, stands: one number, or int32 each.
  int64_t offset;
  const int32_t* offsets;
  // Packed sequences, batch 1: [sequence_count + 1] where each begins, and the length; or null.
  const int32_t* sequences;
  int64_t sequence_count;
  bool interleaved, inverse;
  DType dtype, table_dtype;  // the table's is f32 or dtype
};

// The row of the table that a token takes.
SUFFUSE_HD inline int64_t rotary_position(const RotaryParams& p, int64_t batch, int64_t time) {
  int64_t sequence = batch, start = 0;
  if (p.sequences) {  // the last one that begins at or before the token
    int64_t first = 0, end = p.sequence_count;
    while (end - first > 1) {
      const int64_t middle = (first + end) / 2;
      (p.sequences[middle] <= time ? first : end) = middle;
    }
    sequence = first;
    start = p.sequences[first];
  }
  return time - start + (p.offsets ? p.offsets[sequence] : p.offset);
}

}  // namespace suffuse
