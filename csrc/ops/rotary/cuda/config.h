// How the CUDA kernel of rotary is launched: plain functions of the params.
#pragma once

#include <cstdint>

#include "cuda/groups.h"
#include "cuda/launch_shape.h"
#include "cuda/rotation.h"
#include "ops/rotary/params.h"

namespace suffuse {

struct RotaryShape {
  static constexpr int kThreads = 128;
  static constexpr int kHeads = 4;  // of a thread, with the same angles
};

// What a token's threads are: slots of columns, and of each the heads h, h + head_blocks ...
struct RotaryThreads {
  uint32_t slots, head_blocks;
};

SUFFUSE_HD inline RotaryThreads rotary_threads(const RotaryParams& p, int group) {
  const int columns = static_cast<int>(p.columns), rotated = static_cast<int>(p.rotated);
  const bool rest = p.out.data != p.x.data;  // in place it stays where it is
  const int slots = rest ? column_slots(columns, rotated, group) : rotated_slots(rotated, group);
  return {static_cast<uint32_t>(slots),
          static_cast<uint32_t>((p.heads + RotaryShape::kHeads - 1) / RotaryShape::kHeads)};
}

inline LaunchShape rotary_shape(const RotaryParams& p) {
  const RotaryThreads threads = rotary_threads(p, group_size(sizeof_dtype(p.dtype)));
  const int64_t all = p.batch * p.length * threads.slots * threads.head_blocks;
  return {(all + RotaryShape::kThreads - 1) / RotaryShape::kThreads, RotaryShape::kThreads, 0};
}

// Calls fn(TypeTag<S>, TypeTag<C>) with the types of x and of the tables.
template <class Fn>
void visit_rotary(const RotaryParams& p, Fn&& fn) {
  visit_dtype(p.dtype, [&](auto x) {
    if constexpr (sizeof(typename decltype(x)::type) == 2) {
      if (p.table_dtype == DType::f32) return fn(x, TypeTag<float>{});
    }
    fn(x, x);
  });
}

}  // namespace suffuse
