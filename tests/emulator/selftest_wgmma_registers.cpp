// Planted bugs for the detectors of wgmma: its registers, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

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

// expects: wgmma registers
__global__ void sums_in_shared_memory(Memory) {
  auto& s = shared<Scratch>();
  begin_product(s);
  auto& d = reinterpret_cast<float (&)[32]>(s.x);
  wgmma_fence(d);  // here
  wgmma<64, bfloat16>(d, s.a.descriptor(0, 0), s.b.descriptor(0, 0), false);
  wgmma_commit();
  wgmma_wait<0>(d);
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

const Case kCases[] = {
    CASE(two_products, 128),
    CASE(product_of_registers, 128),
    CASE(sums_in_shared_memory, 128),
    CASE(first_fence_missing, 128),
    CASE(registers_written_behind_fence, 128),
    CASE(registers_not_listed_in_fence, 128),
    CASE(sums_read_before_wait, 128),
    CASE(product_wait_too_lax, 128),
    CASE(wait_does_not_list_the_sums, 128),
    CASE(operand_registers_written_before_wait, 128),
    CASE(product_of_another_shape, 128),
    CASE(product_never_waited_for, 128),
};

}  // namespace

SELFTEST void selftest_wgmma_registers(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
