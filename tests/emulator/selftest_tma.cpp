// Planted bugs for the detectors of TMA, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// ---- TMA loads -------------------------------------------------------------------------------

// expects: nothing
__global__ void load_and_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) load_tile(s.a, m.in, &s.barriers[0]);
  mbarrier_wait(&s.barriers[0], 0);
  m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);
}

// expects: copy in flight|shared race
__global__ void load_without_wait(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    load_tile(s.a, m.in, &s.barriers[0]);
    mbarrier_wait(&s.barriers[0], 0);
  }
  m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);  // here
}

// expects: copy in flight|shared race
__global__ void load_waits_at_another_barrier(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    load_tile(s.a, m.in, &s.barriers[0]);
    load_tile(s.b, m.in, &s.barriers[1]);
  }
  mbarrier_wait(&s.barriers[1], 0);
  m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);  // here
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: mbarrier bytes
__global__ void load_of_more_bytes_than_expected(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes - 128);
    tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);  // here
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: deadlock
__global__ void load_of_less_bytes_than_expected(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes + 128);
    tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);
  }
  mbarrier_wait(&s.barriers[0], 0);  // here
}

// expects: shared race
__global__ void load_over_what_others_read(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  for (uint32_t pass = 0; pass < 2; pass++) {
    if (threadIdx.x == 0) {
      mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
      tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);  // here
    }
    mbarrier_wait(&s.barriers[0], pass);
    m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);  // here
  }
}

// expects: nothing
__global__ void load_behind_readers(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  for (uint32_t pass = 0; pass < 2; pass++) {
    if (threadIdx.x == 0) load_tile(s.a, m.in, &s.barriers[0]);
    mbarrier_wait(&s.barriers[0], pass);
    m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);
    __syncthreads();
  }
}

// expects: proxy fence missing
__global__ void load_over_plain_stores(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  store_vector(s.a.bytes + 4 * threadIdx.x, 0u);  // here
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
    tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);  // here
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: nothing
__global__ void load_over_fenced_stores(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  store_vector(s.a.bytes + 4 * threadIdx.x, 0u);
  __syncthreads();
  if (threadIdx.x == 0) {
    fence_async();
    load_tile(s.a, m.in, &s.barriers[0]);
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: proxy fence missing
__global__ void load_at_unfenced_barrier(Memory m) {
  auto& s = shared<Scratch>();
  if (threadIdx.x == 0) mbarrier_init(&s.barriers[0], 1);  // here
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
    tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);  // here
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: misaligned
__global__ void load_into_the_middle_of_a_pattern(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  tensor_load(s.a.bytes + 512, m.in, 0, 0, &s.barriers[0]);  // here
}

// expects: out of bounds
__global__ void load_beyond_shared_memory(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  tensor_load(s.b.bytes + 4096, m.in, 0, 0, &s.barriers[0]);  // here
}

// expects: out of bounds
__global__ void load_beyond_the_buffer(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  tensor_load(s.a.bytes, m.beyond, 0, 128, &s.barriers[0]);  // here
}

// expects: nothing
__global__ void load_beyond_the_tensor(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
    tensor_load(s.a.bytes, m.in, -32, 96, &s.barriers[0]);
  }
  mbarrier_wait(&s.barriers[0], 0);
  m.results[threadIdx.x] = load_vector<float>(s.a.bytes + 4 * threadIdx.x);
}

// expects: tensor map
__global__ void load_with_too_many_coordinates(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  tensor_load(s.a.bytes, m.in, 0, 0, 0, &s.barriers[0]);  // here
}

// expects: uninitialised
__global__ void load_of_what_nobody_wrote(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
    tensor_load(s.a.bytes, m.out, 0, 0, &s.barriers[0]);  // here
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: copy in flight
__global__ void load_that_nobody_waits_for(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  if (threadIdx.x) return;
  mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
  tensor_load(s.a.bytes, m.in, 0, 0, &s.barriers[0]);  // here
}

// ---- TMA stores ------------------------------------------------------------------------------

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
    CASE(load_and_wait, 128),
    CASE(load_without_wait, 128),
    CASE(load_waits_at_another_barrier, 128),
    CASE(load_of_more_bytes_than_expected, 128),
    CASE(load_of_less_bytes_than_expected, 128),
    CASE(load_over_what_others_read, 128),
    CASE(load_behind_readers, 128),
    CASE(load_over_plain_stores, 128),
    CASE(load_over_fenced_stores, 128),
    CASE(load_at_unfenced_barrier, 128),
    CASE(load_into_the_middle_of_a_pattern, 128),
    CASE(load_beyond_shared_memory, 128),
    CASE(load_beyond_the_buffer, 128),
    CASE(load_beyond_the_tensor, 128),
    CASE(load_with_too_many_coordinates, 128),
    CASE(load_of_what_nobody_wrote, 128),
    CASE(load_that_nobody_waits_for, 128),
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

SELFTEST void selftest_tma(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
