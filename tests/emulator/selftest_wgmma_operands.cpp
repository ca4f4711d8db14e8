// Planted bugs for the detectors of wgmma: its operands in shared memory, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// expects: shared race
__global__ void operand_overwritten_before_wait(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  __syncthreads();
  store_vector(s.b.bytes + 4 * threadIdx.x, 1u);  // here
  wgmma_wait<0>(d);
}

// expects: nothing
__global__ void operand_overwritten_behind_wait(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  product(s, d, false);
  wgmma_commit();
  wgmma_wait<0>(d);
  __syncthreads();
  store_vector(s.b.bytes + 4 * threadIdx.x, 1u);
}

// expects: proxy fence missing
__global__ void operand_without_fence(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x == 0) s.a.bytes[0] = 1;  // here
  __syncthreads();
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: shared race
__global__ void operand_without_barrier(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  store_vector(s.a.bytes + 4 * threadIdx.x, 1u);  // here
  fence_async();
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: copy in flight|shared race
__global__ void operand_not_waited_for(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  fill(s.b);
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) load_tile(s.a, m.in, &s.barriers[0]);
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: uninitialised
__global__ void operand_not_written(Memory) {
  auto& s = shared<Scratch>();
  fill(s.a);
  fence_async();
  __syncthreads();
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: deadlock
__global__ void half_a_warpgroup(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x >= 64) return;
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: warpgroup divergence
__global__ void descriptors_that_differ(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  const int k = threadIdx.x / 32 * 16;
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, k), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: matrix descriptor
__global__ void operand_beyond_its_span(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  const uint64_t b = s.b.descriptor(0, 48) + 1;
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), b, false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: out of bounds
__global__ void operand_beyond_shared_memory(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  const uint64_t b = wgmma_descriptor(s.b.bytes, Swizzle::bytes128, 16, 8192);
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), b, false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: matrix descriptor
__global__ void base_offset_in_descriptor(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  const uint64_t b = s.b.descriptor(0, 0) | uint64_t(1) << 49;
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), b, false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: warpgroup
__global__ void block_of_three_warps(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

const Case kCases[] = {
    CASE(operand_overwritten_before_wait, 128),
    CASE(operand_overwritten_behind_wait, 128),
    CASE(operand_without_fence, 128),
    CASE(operand_without_barrier, 128),
    CASE(operand_not_waited_for, 128),
    CASE(operand_not_written, 128),
    CASE(half_a_warpgroup, 128),
    CASE(descriptors_that_differ, 128),
    CASE(operand_beyond_its_span, 128),
    CASE(operand_beyond_shared_memory, 128),
    CASE(base_offset_in_descriptor, 128),
    CASE(block_of_three_warps, 96),
};

}  // namespace

SELFTEST void selftest_wgmma_operands(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
