// What the kernels of guidance_gram see: per sample, the products of all pairs of tensors and their
// means.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/view.h"

namespace suffuse {

struct GuidanceGramParams {
  static constexpr int kMaxTensors = 4;
  static constexpr int kMaxEntries = kMaxTensors * (kMaxTensors + 3) / 2;

  int64_t batch, elements;  // elements of one sample
  SampleView tensors[kMaxTensors];
  int32_t count;
  DType type;
  bool center;
  double* gram;      // [batch, count, count]
  double* means;     // [batch, count]
  double* partials;  // scratch [batch, pieces, gram_row(count)]
  int64_t pieces;    // of a sample; what one holds depends on shape and device alone
};

// A row of partials: the products of tensors i and j <= i at i (i + 1) / 2 + j, then the sums.
SUFFUSE_HD constexpr int gram_entries(int count) { return count * (count + 3) / 2; }
SUFFUSE_HD constexpr int gram_product(int i, int j) { return i * (i + 1) / 2 + j; }
SUFFUSE_HD constexpr int gram_sum(int count, int i) { return count * (count + 1) / 2 + i; }

// Doubles from row to row: whole sectors of 32 bytes.
SUFFUSE_HD constexpr int gram_row(int count) { return (gram_entries(count) + 3) / 4 * 4; }

// The results for one sample from the sum of its rows.
SUFFUSE_HD inline double gram_entry(const GuidanceGramParams& p, const double* totals, int i,
                                    int j) {
  const double product = totals[i < j ? gram_product(j, i) : gram_product(i, j)];
  if (!p.center || p.elements == 0) return product;
  const double n = static_cast<double>(p.elements);
  return product - totals[gram_sum(p.count, i)] * totals[gram_sum(p.count, j)] / n;
}
SUFFUSE_HD inline double gram_mean(const GuidanceGramParams& p, const double* totals, int i) {
  return totals[gram_sum(p.count, i)] / static_cast<double>(p.elements);
}

}  // namespace suffuse
