// What the kernels of sampler_step see: x' = c_x x + c_F F + c_D D + sum of linear terms, and what
// goes with it.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/view.h"

namespace suffuse {

// Columns of the coefficient table [K] or [B, K].
struct SamplerStepColumn {
  static constexpr int x = 0, model = 1, data = 2, history = 3, anchor = 7, extra = 8, noise = 9;
  static constexpr int data_from_x = 10, data_from_model = 11, clip = 12;
  static constexpr int converted_x = 13, converted_model = 14, converted_data = 15;
  static constexpr int next_scale = 16, guidance = 17, count = 21;
};

struct SamplerStepParams {
  static constexpr int kMaxModels = 4, kMaxTerms = 7;

  int64_t batch, elements;  // elements of one sample
  SampleView x;
  SampleView models[kMaxModels];
  SampleView terms[kMaxTerms];  // history, anchor, extra, noise: what there is of them, in x's type
  int32_t term_columns[kMaxTerms];  // of the coefficient table
  int32_t model_count, term_count;

  const void* coefficients;    // [K] or [batch, K], float or double
  int64_t coefficient_stride;  // from sample to sample; 0 where all share one row
  DType coefficient_type;

  // Contiguous [batch, elements]; null where not asked for.
  void *sample, *converted, *next_input;
  DType x_type, model_type, next_type;

  bool philox;  // one more term: normal numbers made from seed, offset and the element's index
  uint64_t seed, offset;

  // Dynamic threshold: scales[b] = clamp(quantile of |D| in sample b, 1, maximum), written by the
  // threshold kernels, read by the step. float, or double for a double x; null: no threshold.
  // magnitudes: CPU scratch [batch, elements].
  void *scales, *magnitudes;
  double quantile, maximum;

  bool stream;  // store around the caches
};

// Work is cut into pieces of one sample by shape alone, so results do not depend on the number of
// threads.
constexpr int64_t kSamplerStepChunk = 4096;

SUFFUSE_HD inline int64_t sampler_step_chunks(const SamplerStepParams& p) {
  return (p.elements + kSamplerStepChunk - 1) / kSamplerStepChunk;
}

}  // namespace suffuse
