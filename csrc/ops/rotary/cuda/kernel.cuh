// rotary on CUDA: a thread has a slot of columns, reads its angles once and rotates a few heads.
#pragma once

#include "cuda/rotation.cuh"
#include "ops/rotary/cuda/config.h"

namespace suffuse {

// What one thread does.
struct RotaryPlace {
  int64_t batch, time;
  uint32_t slot, head;
  bool there;
};

// Divisions of 32 bits: 64-bit ones would take as long as the rest.
SUFFUSE_DEVICE RotaryPlace rotary_place(const RotaryParams& p, const RotaryThreads& threads) {
  const uint32_t each = threads.slots * threads.head_blocks;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * RotaryShape::kThreads;
  const int64_t whole = first / each;
  const uint32_t index = static_cast<uint32_t>(first - whole * each) + threadIdx.x;
  const uint32_t token = static_cast<uint32_t>(whole) + index / each, inside = index % each;
  const uint32_t length = static_cast<uint32_t>(p.length), batch = token / length;
  return {batch, token - batch * length, inside % threads.slots, inside / threads.slots,
          batch < p.batch};
}

// S: of x; C: of the tables.
template <class S, class C>
__global__ void __launch_bounds__(RotaryShape::kThreads) rotary_kernel(const RotaryParams p) {
  constexpr int W = group_size(sizeof(S)), kHeads = RotaryShape::kHeads;
  using T = decltype(widen(S{}));
  const RotaryThreads threads = rotary_threads(p, W);
  const RotaryPlace at = rotary_place(p, threads);
  if (!at.there) return;
  const ColumnSlot slot = column_slot<W>(static_cast<int>(p.columns), static_cast<int>(p.rotated),
                                         p.interleaved, static_cast<int>(at.slot));
  const S* x = static_cast<const S*>(p.x.data) + at.batch * p.x.batch + at.time * p.x.time;
  S* out = static_cast<S*>(p.out.data) + at.batch * p.out.batch + at.time * p.out.time;

  // load; not past the caches' coherence, for out may be x
  T first[kHeads][W], second[kHeads][W];
#pragma unroll
  for (int i = 0; i < kHeads; i++) {
    const int64_t head = at.head + static_cast<int64_t>(i) * threads.head_blocks;
    if (head >= p.heads) continue;
    load_group<false>(x + head * p.x.head, slot.first, first[i]);
    load_group<false>(x + head * p.x.head, slot.second, second[i]);
  }

  // the angles
  SlotAngles<T, W> angles;
  if (slot.kind != ColumnKind::plain) {
    const int64_t position = rotary_position(p, at.batch, at.time);
    const bool known = position >= 0 && position < p.positions;
    const int64_t row = at.batch * p.table_batch + position * p.table_row;
    angles.load(known ? static_cast<const C*>(p.cos) + row : nullptr,
                known ? static_cast<const C*>(p.sin) + row : nullptr, slot, p.inverse);
  }

  // rotate and store
#pragma unroll
  for (int i = 0; i < kHeads; i++) {
    const int64_t head = at.head + static_cast<int64_t>(i) * threads.head_blocks;
    if (head >= p.heads) continue;
    angles.rotate(slot.kind, first[i], second[i]);
    store_group(out + head * p.out.head, slot.first, first[i]);
    store_group(out + head * p.out.head, slot.second, second[i]);
  }
}

}  // namespace suffuse
