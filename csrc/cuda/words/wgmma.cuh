// Matrix products of a warpgroup (sm_90a): the 128 threads of four warps, the first a multiple of
// four, all execute the word. It runs asynchronously:
//
//   wgmma_fence(d);                       // the registers are as they should be
//   wgmma<N, S>(d, a, b, false); ...      // any number of products
//   wgmma_commit();                       // a group of them
//   wgmma_wait<0>(d);                     // now d may be touched, and a and b overwritten
//
// Between the fence and the wait nothing touches d, the registers of A, or the operands in shared
// memory. Ordinary stores to operands need fence_async and a barrier before.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "cuda/swizzle.h"
#include "cuda/words/memory.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SUFFUSE_SM90A(...) asm volatile(__VA_ARGS__)
#else
#define SUFFUSE_SM90A(...) __trap()
#endif

namespace suffuse::gpu {

// The operand that starts at `start` (a multiple of 16 bytes), as a matrix descriptor.
// K-major (rows of the operand's M or N, K contiguous): 8 rows of a span each lie together, and
//   `stride_bytes` further the next 8. One instruction takes 32 bytes of every row; `start` moves
//   within a span by 32 for the next K. Without swizzle a span is a chunk of 16 bytes, and
//   `leading_bytes` is the distance of the second.
// MN-major (rows of K, M or N contiguous): 8 rows of a span lie together, `stride_bytes` further
//   the next 8 rows of K, `leading_bytes` further the next span of M or N. Without swizzle the two
//   distances change places.
SUFFUSE_DEVICE uint64_t wgmma_descriptor(const void* start, Swizzle swizzle, int leading_bytes,
                                         int stride_bytes) {
  return encode_matrix_descriptor(shared_address(start), swizzle, leading_bytes, stride_bytes);
}

// The compiler moves no access to a register across this.
SUFFUSE_DEVICE void pin_registers(float& value) { asm volatile("" : "+f"(value)::"memory"); }
SUFFUSE_DEVICE void pin_registers(uint32_t& value) { asm volatile("" : "+r"(value)::"memory"); }
template <class T, int N>
SUFFUSE_DEVICE void pin_registers(T (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) pin_registers(registers[i]);
}

// wgmma.fence: before the first product, and after any access to accumulators or registers of A,
// which are listed here as up to four arrays.
template <class... Registers>
SUFFUSE_DEVICE void wgmma_fence(Registers&... registers) {
  (pin_registers(registers), ...);
  SUFFUSE_SM90A("wgmma.fence.sync.aligned;" :: : "memory");
}

// wgmma.commit_group: closes the group of the products since the last.
SUFFUSE_DEVICE void wgmma_commit() {
  SUFFUSE_SM90A("wgmma.commit_group.sync.aligned;" :: : "memory");
}

// wgmma.wait_group: until all but the last kPending groups are through. Lists, as up to four
// arrays, the accumulators and registers of A that are free to be touched again.
template <int kPending, class... Registers>
SUFFUSE_DEVICE void wgmma_wait(Registers&... registers) {
  SUFFUSE_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  (pin_registers(registers), ...);
}

// setmaxnreg: the registers of each thread of the warpgroup from here on; all its warps execute it.
// Up waits until another warpgroup has given enough away.
template <int kRegisters>
SUFFUSE_DEVICE void set_max_registers_up() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  SUFFUSE_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
SUFFUSE_DEVICE void set_max_registers_down() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  SUFFUSE_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace suffuse::gpu

#include "cuda/words/wgmma_sizes-inl.cuh"

namespace suffuse::gpu {

// wgmma.mma_async: d = a b, or d += a b where `accumulate`; a is 64 x K, b is K x N, K = 16 for S =
// bfloat16 and float16, and 8 for float, of which the tensor core reads the upper 19 bits (tf32).
// Accumulators: thread t = 32 w + l of the warpgroup has in d[4 j + 2 h + e] the element of row
// 16 w + 8 h + l / 4 and column 8 j + 2 (l % 4) + e. Sums are in f32; their order and rounding are
// not specified.
template <int N, class S, Major kA = Major::k, Major kB = Major::k>
SUFFUSE_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(sizeof(S) == 2 || (kA == Major::k && kB == Major::k), "tf32 is K-major only");
  WgmmaSize<N>::template run<S, kA == Major::mn, kB == Major::mn>(d, a, b, accumulate);
}

// The same with a in registers: warp w has rows 16 w to 16 w + 15, in the fragments of
// mma_m16n8k16 or mma_m16n8k8_tf32.
template <int N, class S, Major kB = Major::k>
SUFFUSE_DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(sizeof(S) == 2 || kB == Major::k, "tf32 is K-major only");
  WgmmaSize<N>::template run<S, kB == Major::mn>(d, a, b, accumulate);
}

}  // namespace suffuse::gpu
