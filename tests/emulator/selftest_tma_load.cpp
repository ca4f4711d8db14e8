// Planted bugs for the detectors of TMA's loads, as in selftest.cpp.
#include "emulator/selftest_hopper.h"

namespace {

// The first box of a matrix in global memory, by 128 threads, visible to everything.
SUFFUSE_DEVICE void fill_box(bfloat16* matrix) {
  for (unsigned i = threadIdx.x; i < 64 * 32; i += 128) {
    store_vector(matrix + i / 32 * 128 + i % 32 * 2, 0x3f803f80u);
  }
  fence_async();
  __syncthreads();
}

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

// expects: proxy fence missing
__global__ void load_of_unfenced_global_stores(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  fill_box(m.out_data);
  if (threadIdx.x == 0) store_vector(m.out_data, 0u);  // here
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&s.barriers[0], Tile::kBytes);
    tensor_load(s.a.bytes, m.out, 0, 0, &s.barriers[0]);  // here
  }
  mbarrier_wait(&s.barriers[0], 0);
}

// expects: nothing
__global__ void load_of_fenced_global_stores(Memory m) {
  auto& s = shared<Scratch>();
  begin(s, 1);
  fill_box(m.out_data);
  if (threadIdx.x == 0) load_tile(s.a, m.out, &s.barriers[0]);
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
    CASE(load_of_unfenced_global_stores, 128),
    CASE(load_of_fenced_global_stores, 128),
    CASE(load_that_nobody_waits_for, 128),
};

}  // namespace

SELFTEST void selftest_tma_load(const char* name, void* in, void* out, float* results) {
  run_case(kCases, name, in, out, results);
}
