// Planted bugs for the detectors of mbarriers and setmaxnreg, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// ---- mbarriers -------------------------------------------------------------------------------

// expects: mbarrier
__global__ void barrier_not_initialised(Memory) {
  auto& s = shared<Scratch>();
  mbarrier_arrive(&s.barriers[0]);  // here
}

// expects: mbarrier
__global__ void barrier_used_before_init_is_seen(Memory) {
  auto& s = shared<Scratch>();
  if (threadIdx.x >= 32) return;
  if (threadIdx.x == 0) mbarrier_init(&s.barriers[0], 32);  // here
  __shfl_sync(0xffffffffu, 0, 0);                           // orders no memory
  mbarrier_arrive(&s.barriers[0]);                          // here
}

// expects: mbarrier
__global__ void barrier_initialised_twice(Memory) {
  auto& s = shared<Scratch>();
  if (threadIdx.x) return;
  mbarrier_init(&s.barriers[0], 1);
  mbarrier_init(&s.barriers[0], 1);  // here
}

// expects: nothing
__global__ void barrier_initialised_again(Memory) {
  auto& s = shared<Scratch>();
  if (threadIdx.x) return;
  mbarrier_init(&s.barriers[0], 1);
  mbarrier_invalidate(&s.barriers[0]);
  mbarrier_init(&s.barriers[0], 2);
  mbarrier_arrive(&s.barriers[0]);
}

// expects: mbarrier
__global__ void barrier_written_over(Memory) {
  auto& s = shared<Scratch>();
  begin(s, 128);
  if (threadIdx.x == 0) s.barriers[0] = 0;
  __syncthreads();
  mbarrier_arrive(&s.barriers[0]);  // here
}

// expects: mbarrier
__global__ void barrier_misaligned(Memory) {
  auto& s = shared<Scratch>();
  if (threadIdx.x) return;
  auto* odd = reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(s.barriers) + 4);
  mbarrier_init(odd, 1);  // here
}

// expects: nothing
__global__ void hand_over_by_barrier(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 128);
  for (uint32_t pass = 0; pass < 3; pass++) {
    s.x[threadIdx.x] = static_cast<float>(pass);
    mbarrier_arrive(&s.barriers[0]);
    mbarrier_wait(&s.barriers[0], pass & 1);
    m.results[threadIdx.x] = s.x[127 - threadIdx.x];
    mbarrier_arrive(&s.barriers[1]);
    while (!mbarrier_test(&s.barriers[1], pass & 1)) {
    }
  }
}

// expects: shared race
__global__ void overwrite_without_second_barrier(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 128);
  for (uint32_t pass = 0; pass < 3; pass++) {
    s.x[threadIdx.x] = static_cast<float>(pass);  // here
    mbarrier_arrive(&s.barriers[0]);
    mbarrier_wait(&s.barriers[0], pass & 1);
    m.results[threadIdx.x] = s.x[127 - threadIdx.x];  // here
  }
}

// expects: shared race
__global__ void parity_of_the_phase_before(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 128);
  s.x[threadIdx.x] = 1;  // here
  mbarrier_arrive(&s.barriers[0]);
  mbarrier_wait(&s.barriers[0], 1);
  m.results[threadIdx.x] = s.x[127 - threadIdx.x];  // here
}

// expects: deadlock
__global__ void parity_of_the_next_phase(Memory) {
  auto& s = shared<Scratch>();
  begin(s, 128);
  mbarrier_arrive(&s.barriers[0]);
  mbarrier_wait(&s.barriers[0], 0);
  mbarrier_wait(&s.barriers[0], 1);  // here
}

// expects: deadlock
__global__ void one_arrival_missing(Memory) {
  auto& s = shared<Scratch>();
  begin(s, 129);
  mbarrier_arrive(&s.barriers[0]);
  mbarrier_wait(&s.barriers[0], 0);  // here
}

// expects: mbarrier
__global__ void one_arrival_too_many(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  load_tile(s.a, m.in, &s.barriers[0]);
  mbarrier_arrive(&s.barriers[0]);  // here
}

// ---- setmaxnreg: three warpgroups, 168 registers a thread --------------------------------------

// expects: nothing
__global__ void registers_handed_over(Memory) {
  if (threadIdx.x < 128) {
    set_max_registers_down<40>();
  } else {
    set_max_registers_up<232>();
  }
}

// expects: deadlock
__global__ void registers_that_nobody_gives(Memory) {
  if (threadIdx.x < 128) {
    set_max_registers_down<80>();
  } else {
    set_max_registers_up<224>();  // here
  }
}

// expects: register count
__global__ void registers_up_by_down(Memory) {
  set_max_registers_down<128>();
  set_max_registers_down<136>();  // here
}

// expects: warpgroup divergence
__global__ void registers_of_three_warps(Memory) {
  if (threadIdx.x / 32 != 3) set_max_registers_down<128>();  // here
}

const Case kCases[] = {
    CASE(barrier_not_initialised, 128),    CASE(barrier_used_before_init_is_seen, 128),
    CASE(barrier_initialised_twice, 128),  CASE(barrier_initialised_again, 128),
    CASE(barrier_written_over, 128),       CASE(barrier_misaligned, 128),
    CASE(hand_over_by_barrier, 128),       CASE(overwrite_without_second_barrier, 128),
    CASE(parity_of_the_phase_before, 128), CASE(parity_of_the_next_phase, 128),
    CASE(one_arrival_missing, 128),        CASE(one_arrival_too_many, 128),
    CASE(registers_handed_over, 384),      CASE(registers_that_nobody_gives, 384),
    CASE(registers_up_by_down, 384),       CASE(registers_of_three_warps, 384),
};

}  // namespace

SELFTEST void selftest_mbarrier(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
