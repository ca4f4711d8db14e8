// Barriers of a part of a block, and what passes between blocks.
#pragma once

#include <cstdint>
#include <type_traits>

namespace suffuse::gpu {

// Waits at barrier `id`, 1 to 15, until `threads` threads, a multiple of 32, have come to it or
// arrived; what they wrote to memory before is then visible. 0 is the barrier of __syncthreads. All
// lanes of a warp call it together. PTX: bar.sync.
SUFFUSE_DEVICE void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Counts as come to barrier `id`, without waiting. PTX: bar.arrive.
SUFFUSE_DEVICE void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Adds to an element of global memory at once for all threads and returns nothing; the order of
// several additions is not defined. Subnormal floats count as zeros. PTX:
// red.relaxed.gpu.global.add.
SUFFUSE_DEVICE void reduce_add(float* p, float value) {
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(p), "f"(value) : "memory");
}
// The same for double, subnormal numbers included.
SUFFUSE_DEVICE void reduce_add(double* p, double value) {
  asm volatile("red.relaxed.gpu.global.add.f64 [%0], %1;" ::"l"(p), "d"(value) : "memory");
}
// The same for int32_t.
SUFFUSE_DEVICE void reduce_add(int32_t* p, int32_t value) {
  asm volatile("red.relaxed.gpu.global.add.s32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
// The same for uint32_t.
SUFFUSE_DEVICE void reduce_add(uint32_t* p, uint32_t value) {
  asm volatile("red.relaxed.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
// The same for uint64_t.
SUFFUSE_DEVICE void reduce_add(uint64_t* p, uint64_t value) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
}

// Reads a flag in global memory. What its writer wrote before store_release is visible after it.
// PTX: ld.acquire.gpu.
SUFFUSE_DEVICE uint32_t load_acquire(const uint32_t* p) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
// The same for uint64_t.
SUFFUSE_DEVICE uint64_t load_acquire(const uint64_t* p) {
  uint64_t value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(p) : "memory");
  return value;
}

// Writes a flag in global memory, after all that this thread wrote or knows of by a barrier. PTX:
// st.release.gpu.
SUFFUSE_DEVICE void store_release(uint32_t* p, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
// The same for uint64_t.
SUFFUSE_DEVICE void store_release(uint64_t* p, uint64_t value) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(p), "l"(value) : "memory");
}

// Reads a flag, uint32_t or uint64_t, by load_acquire until ready(flag); returns it. The one that
// writes it must be running: a block may wait for blocks of lower index only.
template <class Flag, class Ready>
SUFFUSE_DEVICE Flag spin_until_ready(const Flag* p, Ready ready) {
  Flag value = load_acquire(p);
  while (!ready(value)) value = load_acquire(p);
  return value;
}

// The same until the flag is `least` or more.
template <class Flag>
SUFFUSE_DEVICE Flag spin_until(const Flag* p, std::common_type_t<Flag> least) {
  return spin_until_ready(p, [least](Flag value) { return value >= least; });
}

}  // namespace suffuse::gpu
