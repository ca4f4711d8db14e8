// The host half of csrc/cuda/words/copy.cuh.
#pragma once

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu {

template <int kBytes>
SUFFUSE_DEVICE void copy_async(void* shared, const void* global, bool inside = true,
                               SUFFUSE_WHERE) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::copy_async(shared, global, kBytes, inside ? kBytes : 0, {file, line});
}

SUFFUSE_DEVICE void copy_async_commit() { emulator::copy_async_commit(); }

template <int kPending>
SUFFUSE_DEVICE void copy_async_wait() {
  emulator::copy_async_wait(kPending);
}

}  // namespace suffuse::gpu
