// One planted bug for each thing that the engine looks for, and beside it the right form, which it
// must leave alone. test_selftest.py reads this file: "expects" names the finding (or "nothing"),
// and "here" marks the lines that the finding must name.
#include <cstring>
#include <memory>

#include "cuda/vocab.cuh"

namespace {

using namespace suffuse::gpu;

struct Scratch {
  float x[256];
  uint32_t words[32 * 33];
};

// 256 numbers in `a`, initialised; `b` is not; `flags` are 0.
struct Memory {
  float *a, *b;
  uint32_t* flags;
  float* host;
};

// expects: shared race
__global__ void read_without_barrier(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];        // here
  m.b[threadIdx.x] = s.x[127 - threadIdx.x];  // here
}

// expects: nothing
__global__ void read_behind_barrier(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];
  __syncthreads();
  m.b[threadIdx.x] = s.x[127 - threadIdx.x];
}

// expects: shared race
__global__ void overwrite_without_barrier(Memory m) {
  auto& s = shared<Scratch>();
  float sum = 0;
  for (int tile = 0; tile < 3; tile++) {
    s.x[threadIdx.x] = m.a[threadIdx.x];  // here
    __syncthreads();
    sum += s.x[127 - threadIdx.x];  // here
  }
  m.b[threadIdx.x] = sum;
}

// expects: shared race
__global__ void two_writers(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x / 2] = 1;  // here
  __syncthreads();
  m.b[threadIdx.x] = s.x[threadIdx.x / 2];
}

// expects: shared race
__global__ void read_without_syncwarp(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];      // here
  m.b[threadIdx.x] = s.x[threadIdx.x ^ 1];  // here
}

// expects: nothing
__global__ void read_behind_syncwarp(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];
  __syncwarp();
  m.b[threadIdx.x] = s.x[threadIdx.x ^ 1];
}

// A shuffle orders no memory.
// expects: shared race
__global__ void shuffle_is_no_barrier(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];  // here
  const float other = __shfl_xor_sync(0xffffffffu, m.a[threadIdx.x], 1);
  m.b[threadIdx.x] = other + s.x[threadIdx.x ^ 1];  // here
}

// expects: shared race
__global__ void wrong_named_barrier(Memory m) {
  auto& s = shared<Scratch>();
  s.x[threadIdx.x] = m.a[threadIdx.x];  // here
  named_barrier_sync(1 + static_cast<int>(threadIdx.x) / 64, 64);
  m.b[threadIdx.x] = s.x[127 - threadIdx.x];  // here
}

// The first half produces, the second consumes.
// expects: nothing
__global__ void producer_and_consumer(Memory m) {
  auto& s = shared<Scratch>();
  if (threadIdx.x < 64) {
    s.x[threadIdx.x] = m.a[threadIdx.x];
    named_barrier_arrive(1, 128);
  } else {
    named_barrier_sync(1, 128);
    m.b[threadIdx.x] = s.x[127 - threadIdx.x];
  }
}

// expects: shared race
__global__ void consumer_does_not_wait(Memory m) {
  auto& s = shared<Scratch>();
  if (threadIdx.x < 64) {
    s.x[threadIdx.x] = m.a[threadIdx.x];  // here
    named_barrier_sync(1, 128);
  } else {
    named_barrier_arrive(1, 128);
    m.b[threadIdx.x] = s.x[127 - threadIdx.x];  // here
  }
}

// expects: barrier
__global__ void part_of_a_warp_at_a_barrier(Memory) {
  named_barrier_sync(1, 48);  // here
}

// expects: race between blocks
__global__ void blocks_write_one_address(Memory m) {
  m.b[threadIdx.x] = static_cast<float>(blockIdx.x);  // here
}

// expects: race between blocks
__global__ void block_reads_what_another_wrote(Memory m) {
  if (blockIdx.x == 0) m.a[threadIdx.x] = 1;                 // here
  if (blockIdx.x == 1) m.b[threadIdx.x] = m.a[threadIdx.x];  // here
}

// expects: nothing
__global__ void block_waits_for_a_released_flag(Memory m) {
  if (blockIdx.x == 0) {
    m.a[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) store_release(m.flags, 1);
  } else {
    if (threadIdx.x == 0) spin_until(m.flags, 1);
    __syncthreads();
    m.b[threadIdx.x] = m.a[threadIdx.x];
  }
}

// expects: race between blocks
__global__ void flag_before_its_data(Memory m) {
  if (blockIdx.x == 0) {
    if (threadIdx.x == 0) store_release(m.flags, 1);
    m.a[threadIdx.x] = 1;  // here
  } else {
    if (threadIdx.x == 0) spin_until(m.flags, 1);
    __syncthreads();
    m.b[threadIdx.x] = m.a[threadIdx.x];  // here
  }
}

// An atomic by itself orders nothing else.
// expects: race between blocks
__global__ void relaxed_ticket(Memory m) {
  auto& s = shared<Scratch>();
  m.b[blockIdx.x * 128 + threadIdx.x] = 1;  // here
  __syncthreads();
  if (threadIdx.x == 0) s.words[0] = atomicAdd(m.flags, 1u);
  __syncthreads();
  if (s.words[0] == 1) m.a[threadIdx.x] = m.b[threadIdx.x] + m.b[128 + threadIdx.x];  // here
}

// expects: nothing
__global__ void ticket_between_fences(Memory m) {
  auto& s = shared<Scratch>();
  m.b[blockIdx.x * 128 + threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    s.words[0] = atomicAdd(m.flags, 1u);
    __threadfence();
  }
  __syncthreads();
  if (s.words[0] == 1) m.a[threadIdx.x] = m.b[threadIdx.x] + m.b[128 + threadIdx.x];
}

// expects: global race
__global__ void threads_write_one_address(Memory m) {
  m.b[threadIdx.x / 2] = 1;  // here
}

// expects: nothing
__global__ void atomics_of_one_address(Memory m) { atomicAdd(m.flags, 1u); }

// expects: out of bounds
__global__ void one_past_the_end(Memory m) {
  m.a[threadIdx.x + 129] = 0;  // here
}

// expects: out of bounds
__global__ void vector_across_the_end(Memory m) {
  store_vector(m.a + 254 + threadIdx.x, float2{1, 2});  // here
}

// expects: out of bounds
__global__ void shared_past_the_end(Memory) {
  auto& s = shared<Scratch>();
  s.words[32 * 33 + threadIdx.x] = 0;  // here
}

struct TooMuch {
  float x[8192];
};

// expects: out of bounds
__global__ void more_shared_memory_than_launched(Memory) {
  shared<TooMuch>().x[threadIdx.x] = 0;  // here
}

// expects: misaligned
__global__ void misaligned_vector(Memory m) {
  store_vector(m.a + 1 + 2 * (threadIdx.x / 2), float2{1, 2});  // here
}

// expects: uninitialised
__global__ void uninitialised_global(Memory m) {
  m.a[threadIdx.x] = m.b[threadIdx.x];  // here
}

// expects: uninitialised
__global__ void uninitialised_shared(Memory m) {
  auto& s = shared<Scratch>();
  if (threadIdx.x) s.x[threadIdx.x] = 1;
  __syncthreads();
  m.b[threadIdx.x] = s.x[threadIdx.x];  // here
}

// expects: host memory
__global__ void write_to_the_host(Memory m) {
  m.host[threadIdx.x] = 1;  // here
}

// expects: host memory
__global__ void read_from_the_host(Memory m) {
  m.b[threadIdx.x] = m.host[threadIdx.x];  // here
}

// expects: nothing
__global__ void constant_of_the_kernel(Memory m) {
  static const float table[4] = {1, 2, 3, 4};
  m.b[threadIdx.x] = table[threadIdx.x & 3];
}

// expects: copy in flight
__global__ void copy_not_waited_for(Memory m) {
  auto& s = shared<Scratch>();
  copy_async<16>(s.x + 4 * (threadIdx.x % 32), m.a + 4 * (threadIdx.x % 32), threadIdx.x < 32);
  copy_async_commit();
  m.b[threadIdx.x] = s.x[4 * (threadIdx.x % 32)];  // here
  copy_async_wait<0>();
}

// expects: copy in flight
__global__ void wait_count_too_lax(Memory m) {
  auto& s = shared<Scratch>();
  for (int stage = 0; stage < 2; stage++) {
    copy_async<4>(s.x + 128 * stage + threadIdx.x, m.a + threadIdx.x);
    copy_async_commit();
  }
  copy_async_wait<1>();
  m.b[threadIdx.x] = s.x[128 + threadIdx.x];  // here
  copy_async_wait<0>();
}

// expects: nothing
__global__ void copies_in_two_stages(Memory m) {
  auto& s = shared<Scratch>();
  for (int stage = 0; stage < 2; stage++) {
    copy_async<4>(s.x + 128 * stage + threadIdx.x, m.a + threadIdx.x);
    copy_async_commit();
  }
  copy_async_wait<1>();
  __syncthreads();
  float sum = s.x[127 - threadIdx.x];
  copy_async_wait<0>();
  __syncthreads();
  m.b[threadIdx.x] = sum + s.x[255 - threadIdx.x];
}

// What a thread has waited for is there for itself, for others only behind a barrier.
// expects: shared race
__global__ void copy_of_another_thread(Memory m) {
  auto& s = shared<Scratch>();
  copy_async<4>(s.x + threadIdx.x, m.a + threadIdx.x);  // here
  copy_async_commit();
  copy_async_wait<0>();
  m.b[threadIdx.x] = s.x[threadIdx.x ^ 1];  // here
}

// expects: copy in flight
__global__ void copy_never_waited_for(Memory m) {
  auto& s = shared<Scratch>();
  copy_async<4>(s.x + threadIdx.x, m.a + threadIdx.x);  // here
  copy_async_commit();
}

// expects: barrier divergence
__global__ void barriers_in_two_branches(Memory m) {
  if (threadIdx.x < 64) {
    __syncthreads();  // here
  } else {
    __syncthreads();  // here
  }
  m.b[threadIdx.x] = 0;
}

// expects: deadlock
__global__ void thread_leaves_before_a_barrier(Memory m) {
  if (threadIdx.x == 100) return;
  __syncthreads();  // here
  m.b[threadIdx.x] = 0;
}

// expects: deadlock
__global__ void nobody_sets_the_flag(Memory m) {
  if (threadIdx.x == 0) spin_until(m.flags, 1);  // here
}

// expects: warp divergence
__global__ void lanes_in_two_shuffles(Memory m) {
  float value = m.a[threadIdx.x];
  if (threadIdx.x & 1) {
    value += __shfl_xor_sync(0xffffffffu, value, 2);  // here
  } else {
    value -= __shfl_xor_sync(0xffffffffu, value, 2);  // here
  }
  m.b[threadIdx.x] = value;
}

// expects: deadlock
__global__ void half_a_warp_shuffles(Memory m) {
  float value = m.a[threadIdx.x];
  if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0xffffffffu, value, 1);  // here
  m.b[threadIdx.x] = value;
}

// expects: mask
__global__ void lane_outside_its_mask(Memory m) {
  m.b[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, m.a[threadIdx.x], 1);  // here
}

// expects: shuffle
__global__ void shuffle_from_outside_the_mask(Memory m) {
  if (threadIdx.x % 32 < 16) {
    m.b[threadIdx.x] = __shfl_sync(0x0000ffffu, m.a[threadIdx.x], 20);  // here
  }
}

// expects: misaligned
__global__ void matrix_row_misaligned(Memory m) {
  auto& s = shared<Scratch>();
  for (int i = threadIdx.x; i < 256; i += 128) s.x[i] = m.a[i];
  __syncthreads();
  uint32_t r[1];
  load_matrix_x1(r, s.x + 4 * (threadIdx.x % 8) + 1);  // here
  m.b[threadIdx.x] = __uint_as_float(r[0]);
}

// Counters: 4 bytes of every 32-byte sector are used.
// expects: sectors 8
__global__ void strided_load(Memory m) {
  const int i = static_cast<int>(threadIdx.x) % 32 * 8;
  m.b[threadIdx.x] = m.a[i];
}

// expects: sectors 1
__global__ void dense_load(Memory m) { m.b[threadIdx.x] = m.a[threadIdx.x]; }

// expects: wavefronts 32
__global__ void column_of_32_words(Memory m) {
  auto& s = shared<Scratch>();
  for (int i = threadIdx.x; i < 32 * 32; i += 128) s.words[i] = 0;
  __syncthreads();
  m.b[threadIdx.x] = static_cast<float>(s.words[(threadIdx.x & 31) * 32]);
}

// expects: wavefronts 1
__global__ void column_of_33_words(Memory m) {
  auto& s = shared<Scratch>();
  for (int i = threadIdx.x; i < 32 * 33; i += 128) s.words[i] = 0;
  __syncthreads();
  m.b[threadIdx.x] = static_cast<float>(s.words[(threadIdx.x & 31) * 33]);
}

// One 16-byte access stays one, whether a word or plain C++ says it.
// expects: sectors 1
__global__ void vector_in_plain_code(Memory m) {
  const auto* from = reinterpret_cast<const float4*>(m.a);
  if (threadIdx.x >= 64) return;
  const float4 v = from[threadIdx.x];
  reinterpret_cast<float4*>(m.b)[threadIdx.x] = {v.x + 1, v.y, v.z, v.w};
}

struct Case {
  const char* name;
  void (*kernel)(Memory);
  unsigned blocks;
};
#define CASE(name, blocks) {#name, name, blocks}
const Case kCases[] = {
    CASE(read_without_barrier, 1),
    CASE(read_behind_barrier, 1),
    CASE(overwrite_without_barrier, 1),
    CASE(two_writers, 1),
    CASE(read_without_syncwarp, 1),
    CASE(read_behind_syncwarp, 1),
    CASE(shuffle_is_no_barrier, 1),
    CASE(wrong_named_barrier, 1),
    CASE(producer_and_consumer, 1),
    CASE(consumer_does_not_wait, 1),
    CASE(part_of_a_warp_at_a_barrier, 1),
    CASE(blocks_write_one_address, 2),
    CASE(block_reads_what_another_wrote, 2),
    CASE(block_waits_for_a_released_flag, 2),
    CASE(flag_before_its_data, 2),
    CASE(relaxed_ticket, 2),
    CASE(ticket_between_fences, 2),
    CASE(threads_write_one_address, 1),
    CASE(atomics_of_one_address, 1),
    CASE(one_past_the_end, 1),
    CASE(vector_across_the_end, 1),
    CASE(shared_past_the_end, 1),
    CASE(more_shared_memory_than_launched, 1),
    CASE(misaligned_vector, 1),
    CASE(uninitialised_global, 1),
    CASE(uninitialised_shared, 1),
    CASE(write_to_the_host, 1),
    CASE(read_from_the_host, 1),
    CASE(constant_of_the_kernel, 1),
    CASE(copy_not_waited_for, 1),
    CASE(wait_count_too_lax, 1),
    CASE(copies_in_two_stages, 1),
    CASE(copy_of_another_thread, 1),
    CASE(copy_never_waited_for, 1),
    CASE(barriers_in_two_branches, 1),
    CASE(thread_leaves_before_a_barrier, 1),
    CASE(nobody_sets_the_flag, 1),
    CASE(lanes_in_two_shuffles, 1),
    CASE(half_a_warp_shuffles, 1),
    CASE(lane_outside_its_mask, 1),
    CASE(shuffle_from_outside_the_mask, 1),
    CASE(matrix_row_misaligned, 1),
    CASE(strided_load, 1),
    CASE(dense_load, 1),
    CASE(column_of_32_words, 1),
    CASE(column_of_33_words, 1),
    CASE(vector_in_plain_code, 1),
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void selftest(const char* name, float* a,
                                                                float* b, uint32_t* flags) {
  const auto host = std::make_unique<float[]>(128);
  for (const Case& c : kCases) {
    if (std::strcmp(c.name, name)) continue;
    emulator::launch(c.name, c.kernel, dim3(c.blocks), dim3(128), sizeof(Scratch),
                     Memory{a, b, flags, host.get()});
  }
}
