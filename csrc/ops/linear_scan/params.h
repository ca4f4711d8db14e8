// What the linear_scan kernels are given. Strides count elements, complex ones where they are.
//
//   h_t = a_t h_{t-1} + x_t
//
// `lagged` is the scan of the backward pass: h_t = a_{t-1} h_{t-1} + x_t, with the initial state
// taken as it is and the last one times a of the last step.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

// A tensor [batch, channel, time]; steps or channels are adjacent (complex: steps), or time is 0:
// the same at all steps.
struct LinearScanRows {
  void* data;
  int64_t batch, channel, time;
};

struct LinearScanParams {
  int64_t batch, channels, length;
  LinearScanRows a, x, h;
  // [batch, channels] in the arithmetic's type: float, or double for f64; initial may be null.
  const void* initial;
  void* last;
  const int32_t*
      sequence;  // [batch, length] contiguous or null: the state restarts where it changes
  bool reverse, lagged, complex;
  DType a_dtype, dtype;  // of a, and of x and h; complex: of their parts
};

}  // namespace suffuse
