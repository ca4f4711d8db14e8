// How samples are cut into groups of W elements, W a power of two, one group a thread: plain
// functions for launchers, kernels and tests.
//
// The first group of a sample starts at a multiple of kGroupAlignment elements counted from the
// start of a contiguous tensor [batch, elements], so that words and sectors stay aligned in samples
// of any size.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace suffuse {

constexpr int64_t kGroupAlignment = 16;

// Elements of 16 bytes of the widest tensor that a thread touches: then the words of a warp lie
// side by side in each of them.
SUFFUSE_HD constexpr int group_size(int64_t widest_bytes) {
  return static_cast<int>(16 / widest_bytes);
}

// How many elements before the sample its first group starts.
SUFFUSE_HD inline int64_t group_shift(int64_t elements, int64_t sample) {
  return sample * elements % kGroupAlignment;
}

// Groups of one sample: as many as the sample with the largest shift needs, and whole alignments of
// them, so that a warp's first group is aligned in every sample.
SUFFUSE_HD inline int64_t groups_of_sample(int64_t batch, int64_t elements, int group) {
  const int64_t factor = elements & -elements;  // the largest power of two in it
  const bool shifted = batch > 1 && factor < kGroupAlignment;
  const int64_t most = elements + (shifted ? kGroupAlignment - factor : 0);
  return (most + kGroupAlignment - 1) / kGroupAlignment * (kGroupAlignment / group);
}

}  // namespace suffuse
