// A loop over tiles whose copies to shared memory run ahead of it.
#pragma once

#include "cuda/vocab.cuh"

namespace suffuse {

// For each tile i < tiles: load(stage, i) starts its copies, kStages - 1 tiles ahead, and
// compute(stage, i) uses what they brought. load issues copy_async without committing them, or
// writes shared memory at once. One barrier a tile; behind the loop, shared memory needs another
// before it serves something else.
template <int kStages, class Load, class Compute>
SUFFUSE_DEVICE void pipelined_loop(int tiles, Load load, Compute compute) {
  static_assert(kStages >= 2);
#pragma unroll
  for (int i = 0; i < kStages - 1; i++) {
    if (i < tiles) load(i, i);
    gpu::copy_async_commit();
  }
  int stage = 0, free_stage = kStages - 1;
  for (int i = 0; i < tiles; i++) {
    gpu::copy_async_wait<kStages - 2>();
    __syncthreads();  // tile i is there for all, and all are done with the free stage
    if (i + kStages - 1 < tiles) load(free_stage, i + kStages - 1);
    gpu::copy_async_commit();  // an empty group at the end, so that the count above stays right
    compute(stage, i);
    free_stage = stage;
    stage = stage + 1 < kStages ? stage + 1 : 0;
  }
}

}  // namespace suffuse
