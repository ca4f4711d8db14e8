// A thread's place in its block.
#pragma once

#include <cstdint>

namespace suffuse::gpu {

// Index of the thread in its warp, 0 to 31. PTX: %laneid.
SUFFUSE_DEVICE uint32_t lane() {
  uint32_t index;
  asm("mov.u32 %0, %%laneid;" : "=r"(index));
  return index;
}

// Index of the thread's warp in its block; x is the fastest dimension of a block.
SUFFUSE_DEVICE uint32_t warp() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) / 32;
}

// x, and the compiler does not know that it is: what is computed from it is not moved out of a
// loop, where it would be kept in registers.
SUFFUSE_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// True in one lane, the same at every call. All 32 lanes of the warp call it together. PTX:
// elect.sync; before sm_90 it is lane 0.
SUFFUSE_DEVICE bool elect_one() {
#if __CUDA_ARCH__ >= 900
  uint32_t elected;
  asm volatile(
      "{\n"
      "  .reg .pred p;\n"
      "  elect.sync _|p, 0xffffffff;\n"
      "  selp.b32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(elected)::"memory");
  return elected != 0;
#else
  return lane() == 0;
#endif
}

}  // namespace suffuse::gpu
