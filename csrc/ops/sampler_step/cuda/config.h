// Launch shapes of the CUDA kernels of sampler_step: pure functions of the params.
#pragma once

#include <cstdint>

#include "ops/sampler_step/params.h"

namespace suffuse {

struct LaunchShape {
  int64_t blocks;
  int32_t threads;
  int32_t shared_bytes;
};

// Elements that a thread handles at once: whole Philox blocks of 4, and 16 bytes or more of the
// operands.
SUFFUSE_HD constexpr int sampler_step_group(int64_t x_bytes, int64_t model_bytes) {
  return x_bytes == 2 || model_bytes == 2 ? 8 : 4;
}

// Groups start at multiples of their size counted from the start of the tensor, so that they stay
// aligned in samples of any size; a sample may then need one group more.
SUFFUSE_HD inline int64_t sampler_step_groups(const SamplerStepParams& p, int group) {
  return (p.elements + 2 * group - 2) / group;
}

inline LaunchShape sampler_step_shape(const SamplerStepParams& p) {
  constexpr int32_t kThreads = 256;
  constexpr int64_t kMostBlocks = 16384;  // each thread goes on at a stride of the grid
  const int group = sampler_step_group(sizeof_dtype(p.x_type), sizeof_dtype(p.model_type));
  const int64_t groups = p.batch * sampler_step_groups(p, group);
  const int64_t blocks = (groups + kThreads - 1) / kThreads;
  return {blocks < kMostBlocks ? blocks : kMostBlocks, kThreads, 0};
}

// What the threads of a block share while they select a quantile.
template <class Key>
struct SelectionState {
  uint32_t counts[256];
  uint32_t has_nan;
  uint32_t less, up_to;  // entries below the wanted digits, and up to and with them
  Key known;             // the digits found so far
  Key next;              // smallest key above the one found
};

// One block for each sample.
inline LaunchShape sampler_step_scales_shape(const SamplerStepParams& p) {
  const int32_t shared = p.x_type == DType::f64 ? sizeof(SelectionState<unsigned long long>)
                                                : sizeof(SelectionState<uint32_t>);
  return {p.batch, 512, shared};
}

}  // namespace suffuse
