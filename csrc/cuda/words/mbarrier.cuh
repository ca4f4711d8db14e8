// Barriers in shared memory that count arrivals and bytes (sm_90). A phase is complete when all of
// `count` have arrived and all bytes that were announced have come; the barrier is then at once in
// its next phase. Phases are told apart by their parity: the first has 0.
#pragma once

#include <cstdint>

#include "cuda/words/memory.cuh"

// Traps where the architecture lacks the instruction, so that a kernel compiles for all.
#if __CUDA_ARCH__ >= 900
#define SUFFUSE_SM90(...) asm volatile(__VA_ARGS__)
#else
#define SUFFUSE_SM90(...) __trap()
#endif

namespace suffuse::gpu {

// mbarrier.init. By one thread; the others see it after fence_mbarrier_init and a barrier.
SUFFUSE_DEVICE void mbarrier_init(uint64_t* barrier, int count) {
  SUFFUSE_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(count) : "memory");
}

// mbarrier.inval: before the memory is used for something else.
SUFFUSE_DEVICE void mbarrier_invalidate(uint64_t* barrier) {
  SUFFUSE_SM90("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// fence.mbarrier_init: makes the barriers that this thread initialised visible to TMA and, with the
// block barrier that follows, to all threads.
SUFFUSE_DEVICE void fence_mbarrier_init() {
  SUFFUSE_SM90("fence.mbarrier_init.release.cluster;" :: : "memory");
}

// mbarrier.arrive (release): one arrival.
SUFFUSE_DEVICE void mbarrier_arrive(uint64_t* barrier) {
  SUFFUSE_SM90("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(
      shared_address(barrier)) : "memory");
}

// mbarrier.arrive.expect_tx (release): one arrival, and `bytes` more are to come by TMA. Boxes
// count with all their bytes, those outside the tensor too.
SUFFUSE_DEVICE void mbarrier_arrive_expect(uint64_t* barrier, int bytes) {
  SUFFUSE_SM90("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                   shared_address(barrier)),
               "r"(bytes) : "memory");
}

// mbarrier.try_wait.parity (acquire): whether the phase of that parity is complete, after a while
// at the latest.
SUFFUSE_DEVICE bool mbarrier_test(uint64_t* barrier, uint32_t parity) {
  uint32_t complete = 0;
  SUFFUSE_SM90(
      "{\n"
      ".reg .pred complete;\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 complete, [%1], %2;\n"
      "selp.u32 %0, 1, 0, complete;\n"
      "}" : "=r"(complete) : "r"(shared_address(barrier)),
      "r"(parity) : "memory");
  return complete != 0;
}

// Waits for the phase of that parity. A fresh barrier counts as having completed parity 1.
SUFFUSE_DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!mbarrier_test(barrier, parity)) {
  }
}

// fence.proxy.async: what this thread has written by ordinary stores, or knows to be written,
// becomes visible to asynchronous units (TMA, wgmma).
SUFFUSE_DEVICE void fence_async() { SUFFUSE_SM90("fence.proxy.async;" :: : "memory"); }

}  // namespace suffuse::gpu
