// A ring of stages in shared memory between one thread that fills them by TMA and warps that use
// them.
#pragma once

#include <cstdint>

#include "cuda/vocab.cuh"

namespace suffuse {

// Where a thread is in the ring: every pass over the stages changes the parity.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  SUFFUSE_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int kStages>
struct StageRing {
  uint64_t full[kStages], empty[kStages];

  // By one thread, before a __syncthreads. `users`: arrivals that make a stage free again.
  SUFFUSE_DEVICE void init(int users) {
    for (int i = 0; i < kStages; i++) {
      gpu::mbarrier_init(&full[i], 1);
      gpu::mbarrier_init(&empty[i], users);
    }
    gpu::fence_mbarrier_init();
  }

  // The filler: waits until the stage is free and announces the bytes that it then loads.
  SUFFUSE_DEVICE uint64_t* begin_fill(const RingPosition<kStages>& at, int bytes) {
    gpu::mbarrier_wait(&empty[at.stage], at.parity ^ 1);
    gpu::mbarrier_arrive_expect(&full[at.stage], bytes);
    return &full[at.stage];
  }

  // A user: waits until the stage is filled.
  SUFFUSE_DEVICE void wait_full(const RingPosition<kStages>& at) {
    gpu::mbarrier_wait(&full[at.stage], at.parity);
  }

  // A user, one arrival: nothing of its own reads the stage any more.
  SUFFUSE_DEVICE void release(int stage) { gpu::mbarrier_arrive(&empty[stage]); }
};

}  // namespace suffuse
