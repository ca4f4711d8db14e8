// Planted bugs for the detectors of TMA's stores, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// expects: nothing
__global__ void store_and_wait(Memory m) {
  auto& s = shared<Scratch>();
  fill(s.a);
  fence_async();
  __syncthreads();
  if (threadIdx.x) return;
  s.a.store(m.out, 0, 0);
  bulk_commit();
  bulk_wait_read<0>();
}

// expects: proxy fence missing
__global__ void store_without_fence(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  store_vector(s.a.bytes + 4 * threadIdx.x, 0u);  // here
  __syncthreads();
  if (threadIdx.x) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_commit();
  bulk_wait_read<0>();
}

// expects: shared race
__global__ void store_without_barrier(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  store_vector(s.a.bytes + 4 * threadIdx.x, 0u);  // here
  fence_async();
  if (threadIdx.x != 64) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_commit();
  bulk_wait_read<0>();
}

// expects: operand in flight|shared race
__global__ void store_source_overwritten(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  s.a.store(m.out, 0, 0);
  bulk_commit();
  s.a.bytes[0] = 1;  // here
  bulk_wait_read<0>();
}

// expects: shared race
__global__ void store_wait_too_lax(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  s.a.store(m.out, 0, 0);
  bulk_commit();
  tensor_store(m.out, 64, 0, s.b.bytes);  // here
  bulk_commit();
  bulk_wait_read<1>();
  s.b.bytes[0] = 1;  // here
  bulk_wait_read<0>();
}

// expects: nothing
__global__ void store_source_overwritten_behind_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  s.a.store(m.out, 0, 0);
  bulk_commit();
  s.b.store(m.out, 64, 0);
  bulk_commit();
  bulk_wait_read<1>();
  s.a.bytes[0] = 1;
  bulk_wait_read<0>();
}

// expects: bulk copy
__global__ void store_never_waited_for(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_commit();
}

// expects: bulk copy
__global__ void store_never_committed(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_wait_read<0>();
}

// expects: global race
__global__ void result_read_before_it_is_written(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_commit();
  bulk_wait_read<0>();
  m.results[0] = m.out_data[0].bits;  // here
}

// expects: nothing
__global__ void result_read_behind_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x) return;
  s.a.store(m.out, 0, 0);
  bulk_commit();
  bulk_wait<0>();
  m.results[0] = m.out_data[0].bits;
}

// expects: global race
__global__ void two_stores_of_one_box(Memory m) {
  auto& s = shared<Scratch>();
  begin_product(s);
  if (threadIdx.x % 64) return;
  tensor_store(m.out, 0, 0, s.a.bytes);  // here
  bulk_commit();
  bulk_wait<0>();
}

const Case kCases[] = {
    CASE(store_and_wait, 128),
    CASE(store_without_fence, 128),
    CASE(store_without_barrier, 128),
    CASE(store_source_overwritten, 128),
    CASE(store_wait_too_lax, 128),
    CASE(store_source_overwritten_behind_wait, 128),
    CASE(store_never_waited_for, 128),
    CASE(store_never_committed, 128),
    CASE(result_read_before_it_is_written, 128),
    CASE(result_read_behind_wait, 128),
    CASE(two_stores_of_one_box, 128),
};

}  // namespace

SELFTEST void selftest_tma_store(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
