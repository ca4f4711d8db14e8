// CUDA's qualifiers, built-in variables and block barriers for g++.
#pragma once

#include <vector_functions.h>
#include <vector_types.h>

#include "emulator/emulator.h"

// CUDA's headers above define these for g++ too, as attributes that it does not know. What they
// define and is not here (__shared__, __constant__, __managed__) has no meaning in the emulator and
// stays an error.
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __grid_constant__
#undef __launch_bounds__
#undef __maxnreg__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __maxnreg__(count)
#define __forceinline__ inline __attribute__((always_inline))
#define SUFFUSE_DEVICE inline __attribute__((always_inline))

// The last parameters of every word that can be at fault: where it stands in the kernel.
#define SUFFUSE_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define threadIdx (::emulator::thread_index())
#define blockIdx (::emulator::block_index())
#define blockDim (::emulator::block_size())
#define gridDim (::emulator::grid_size())
constexpr int warpSize = 32;

SUFFUSE_DEVICE void __syncthreads(SUFFUSE_WHERE) { emulator::barrier_sync(0, 0, {file, line}); }
SUFFUSE_DEVICE void __syncwarp(unsigned mask = 0xffffffffu, SUFFUSE_WHERE) {
  emulator::warp_sync(mask, {file, line});
}
SUFFUSE_DEVICE void __threadfence_block() { emulator::thread_fence(); }
SUFFUSE_DEVICE void __threadfence() { emulator::thread_fence(); }
SUFFUSE_DEVICE void __threadfence_system() { emulator::thread_fence(); }
[[noreturn]] SUFFUSE_DEVICE void __trap(SUFFUSE_WHERE) {
  emulator::fail("trap", "__trap()", {file, line});
}
