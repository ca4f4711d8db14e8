// Copies from global to shared memory that a thread starts and later waits for (sm_80).
#pragma once

#include "cuda/words/memory.cuh"

namespace suffuse::gpu {

// Starts a copy of kBytes, 4, 8 or 16, both addresses at a multiple of that; with inside false the
// destination is filled with zeros and `global` not touched. 16 bytes bypass the L1 cache. The
// destination is this thread's to read after copy_async_wait, other threads' after a barrier behind
// it. PTX: cp.async.{ca,cg}.
template <int kBytes>
SUFFUSE_DEVICE void copy_async(void* shared, const void* global, bool inside = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(inside ? 16 : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(kBytes), "r"(inside ? kBytes : 0)
                 : "memory");
  }
}

// Makes one group of the copies that this thread started since the last one; it may be empty. PTX:
// cp.async.commit_group.
SUFFUSE_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups, the youngest, are unfinished. PTX:
// cp.async.wait_group.
template <int kPending>
SUFFUSE_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace suffuse::gpu
