// What the kernels of selective_state_update, one step of the scan, are given. Strides count
// elements.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

// [batch, head, place] of the call's dtype; null where there is none.
struct StepRows {
  const void* data;
  int64_t batch, head, place;
};

// [head, place] in the arithmetic's type, or null.
struct StepChannels {
  const void* data;
  int64_t head, place;
};

// B or C: [batch, group, state] of the call's dtype, states adjacent.
struct StepProjection {
  const void* data;
  int64_t batch, group;
};

struct StateUpdateParams {
  int64_t batch, heads, places, states, groups;  // a channel is a place of a head
  StepRows x, dt, z;
  StepChannels skip, bias;
  // [head, place, state] in the arithmetic's type; `a_state` is 0 (one number for all) or 1.
  StepChannels a;
  int64_t a_state;
  StepProjection b, c;
  const int32_t* indices;  // [batch] slots, negative: padding; null: slot i is entry i's
  void* state;             // [slot, head, place, state], states adjacent
  int64_t state_slot, state_head, state_place;
  void* out;  // [batch, head, place] contiguous
  bool softplus;
  DType dtype, state_dtype;
};

}  // namespace suffuse
