// Planted bugs for the detectors of wgmma, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// ---- wgmma -----------------------------------------------------------------------------------

// expects: nothing
__global__ void two_products(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  for (int pass = 0; pass < 3; pass++) {
    wgmma_fence(d);
    product(s, d, pass > 0);
    wgmma_commit();
    wgmma_wait<1>(d);
  }
  wgmma_wait<0>(d);
  m.results[threadIdx.x] = d[threadIdx.x % 32];
}

// expects: nothing
__global__ void product_of_registers(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32] = {};
  uint32_t a[2][4];
  for (int pass = 0; pass < 3; pass++) {
    for (int i = 0; i < 8; i++) a[i / 4][i % 4] = threadIdx.x;
    wgmma_fence(d, a);
    wgmma<64, bfloat16>(d, a[0], s.b.descriptor(0, 0), true);
    wgmma<64, bfloat16>(d, a[1], s.b.descriptor(0, 16), true);
    wgmma_commit();
    wgmma_wait<0>(d, a);
  }
  m.results[threadIdx.x] = d[threadIdx.x % 32];
}

// expects: wgmma fence
__global__ void first_fence_missing(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: wgmma fence
__global__ void registers_written_behind_fence(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  for (int i = 0; i < 32; i++) d[i] = m.results[i] = 1;                      // here
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), true);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: wgmma fence
__global__ void registers_not_listed_in_fence(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  for (int pass = 0; pass < 2; pass++) {
    wgmma_fence();
    wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
    wgmma_commit();
    wgmma_wait<0>(d);
    m.results[threadIdx.x] = d[threadIdx.x % 32];  // here
  }
}

// expects: registers in flight
__global__ void sums_read_before_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  product(s, d, false);
  wgmma_commit();
  m.results[threadIdx.x] = d[threadIdx.x % 32];  // here
  wgmma_wait<0>(d);
}

// expects: registers in flight
__global__ void product_wait_too_lax(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  product(s, d, false);
  wgmma_commit();
  wgmma_wait<1>(d);
  m.results[threadIdx.x] = d[threadIdx.x % 32];  // here
  wgmma_wait<0>(d);
}

// expects: registers in flight
__global__ void wait_does_not_list_the_sums(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  product(s, d, false);
  wgmma_commit();
  wgmma_wait<0>();
  m.results[threadIdx.x] = d[threadIdx.x % 32];  // here
}

// expects: registers in flight
__global__ void operand_registers_written_before_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  uint32_t a[4] = {1, 2, 3, threadIdx.x};
  wgmma_fence(d, a);
  wgmma<64, bfloat16>(d, a, s.b.descriptor(0, 0), false);
  wgmma_commit();
  a[m.results == nullptr] = 5;  // here
  wgmma_wait<0>(d, a);
}

// expects: registers in flight
__global__ void product_of_another_shape(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  auto& half = reinterpret_cast<float (&)[16]>(d);
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);
  wgmma<32, bfloat16>(half, s.a.descriptor(0, 0), s.b.descriptor(0, 0), true);  // here
  wgmma_commit();
  wgmma_wait<0>(d);
}

// expects: wgmma wait
__global__ void product_never_waited_for(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  float d[32];
  wgmma_fence(d);
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);  // here
  wgmma_commit();
}

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

const Case kCases[] = {
    CASE(two_products, 128),
    CASE(product_of_registers, 128),
    CASE(first_fence_missing, 128),
    CASE(registers_written_behind_fence, 128),
    CASE(registers_not_listed_in_fence, 128),
    CASE(sums_read_before_wait, 128),
    CASE(product_wait_too_lax, 128),
    CASE(wait_does_not_list_the_sums, 128),
    CASE(operand_registers_written_before_wait, 128),
    CASE(product_of_another_shape, 128),
    CASE(product_never_waited_for, 128),
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
};

}  // namespace

SELFTEST void selftest_wgmma(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
