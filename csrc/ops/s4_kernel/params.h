// What the s4_kernel kernels are given. Complex numbers are pairs of adjacent parts, of float or
// double; all tensors are contiguous.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

// Outputs l = column + kS4Columns row + kS4Chunk chunk: every power e^(x l) is the product of one
// of the column and one of the row and chunk, each of which is evaluated from x itself.
constexpr int kS4Columns = 64, kS4Rows = 64;
constexpr int64_t kS4Chunk = kS4Columns * kS4Rows;

inline int64_t s4_chunks(int64_t length) { return (length + kS4Chunk - 1) / kS4Chunk; }

// out_l = sum_n v_n e^(x_n l), or twice its real part.
struct S4VandermondeParams {
  int64_t rows, terms, length;
  const void *v, *x;  // [rows, terms] complex
  void* out;          // [rows, length], complex unless `real`
  bool real;
  DType dtype;  // of the parts
};

// moment_n = sum_l u_l e^(x_n l) and sum_l l u_l e^(x_n l).
struct S4MomentsParams {
  int64_t rows, terms, length;
  const void* u;         // [rows, length]
  const void* x;         // [rows, terms] complex
  void *zeroth, *first;  // [rows, terms] complex
  void* partials;        // [rows, chunks, 2, terms] complex, where there are several chunks
  bool complex;          // u is
  DType dtype;
};

// out_l = sum_n v_n / (z_l - w_n)^power, and the same with power + 1. conj: plus the terms of the
// conjugates of v and w.
struct S4CauchyParams {
  int64_t rows, outputs, terms;
  const void *v, *z, *w;  // [rows, terms], [rows or 1, outputs], [rows or 1, terms] complex
  int64_t z_row, w_row;   // from one row to the next, 0 where there is one
  void *out, *next;       // [rows, outputs] complex; next may be null
  int32_t power;
  bool conj;
  DType dtype;
};

}  // namespace suffuse
