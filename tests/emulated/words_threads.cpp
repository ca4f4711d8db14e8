// Kernels that show how threads tell each other something: shuffles, votes, barriers, atomic
// functions and flags, for test_words_threads.py.
#include "cuda/vocab.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// Of the value 100 + lane in each of the lanes of `mask`. which: 0 __shfl_sync, 1 up, 2 down, 3
// xor.
template <class T>
__global__ void shuffle_kernel(T* out, int64_t which, int64_t by, int64_t width, int64_t mask) {
  const int lane = static_cast<int>(gpu::lane()), w = static_cast<int>(width);
  const unsigned m = static_cast<unsigned>(mask), d = static_cast<unsigned>(by);
  const T value = static_cast<T>(100 + lane);
  if (!(m >> lane & 1)) return;
  out[lane] = which == 0   ? __shfl_sync(m, value, static_cast<int>(by), w)
              : which == 1 ? __shfl_up_sync(m, value, d, w)
              : which == 2 ? __shfl_down_sync(m, value, d, w)
                           : __shfl_xor_sync(m, value, static_cast<int>(by), w);
}

// in[lane] is the predicate. By lane: ballot, any, all.
__global__ void vote_kernel(const int32_t* in, int32_t* out, int64_t mask) {
  const int lane = static_cast<int>(gpu::lane());
  const unsigned m = static_cast<unsigned>(mask);
  if (!(m >> lane & 1)) return;
  const int predicate = in[lane];
  const unsigned votes = __ballot_sync(m, predicate);
  const int any = __any_sync(m, predicate);
  const int all = __all_sync(m, predicate);
  out[3 * lane] = static_cast<int32_t>(votes);
  out[3 * lane + 1] = any;
  out[3 * lane + 2] = all;
}

// The first warp hands rounds of numbers to the second through one buffer: barrier 1 says that it
// is full, barrier 2 that it is free.
struct HandOver {
  int32_t values[32];
};

__global__ void barrier_kernel(const int32_t* in, int32_t* out, int64_t rounds) {
  auto& s = gpu::shared<HandOver>();
  const int lane = static_cast<int>(gpu::lane());
  for (int64_t i = 0; i < rounds; i++) {
    if (gpu::warp() == 0) {
      if (i > 0) gpu::named_barrier_sync(2, 64);
      s.values[lane] = in[32 * i + lane];
      gpu::named_barrier_arrive(1, 64);
    } else {
      gpu::named_barrier_sync(1, 64);
      out[32 * i + lane] = s.values[31 - lane];
      if (i + 1 < rounds) gpu::named_barrier_arrive(2, 64);
    }
  }
}

// Adds in[i] to sum[i % 2] for all i.
template <class T>
__global__ void reduce_kernel(const T* in, T* sum, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) gpu::reduce_add(sum + i % 2, in[i]);
}

// Each thread once; out[i] is what it found there. which: 0 add, 1 min, 2 max, 3 and, 4 or, 5
// exchange, 6 compare and swap (with the value of the thread before).
template <class T>
__global__ void atomic_kernel(const T* in, T* place, T* out, int64_t which) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  const T value = in[i];
  T old = 0;
  if constexpr (std::is_floating_point_v<T>) {
    old = atomicAdd(place, value);
  } else {
    if (which == 0) old = atomicAdd(place, value);
    if (which == 1) old = atomicMin(place, value);
    if (which == 2) old = atomicMax(place, value);
    if (which == 3) old = atomicAnd(place, value);
    if (which == 4) old = atomicOr(place, value);
    if (which == 5) old = atomicExch(place, value);
    if (which == 6) old = atomicCAS(place, i == 0 ? T(0) : in[i - 1], value);
  }
  out[i] = old;
}

// Each block adds its number to what the block before it left, one after another.
template <class Flag>
__global__ void chain_kernel(Flag* flags, int32_t* sums, int64_t ready) {
  const unsigned b = blockIdx.x;
  if (threadIdx.x != 0) return;
  int32_t before = 0;
  if (b > 0) {
    const Flag found = ready ? gpu::spin_until_ready(flags + b - 1, [](Flag f) { return f == 7; })
                             : gpu::spin_until(flags + b - 1, 5);
    before = sums[b - 1] + static_cast<int32_t>(found - 7);
  }
  sums[b] = before + static_cast<int32_t>(b);
  gpu::store_release(flags + b, 7);
}

// Lane 1 waits for what lane 0 of the same warp tells it.
__global__ void within_warp_kernel(uint32_t* flag, int32_t* value, int32_t* out) {
  if (threadIdx.x == 0) {
    value[0] = 42;
    gpu::store_release(flag, 1);
  } else {
    gpu::spin_until(flag, 1);
    out[0] = value[0];
  }
}

// Nobody writes the flag.
__global__ void forever_kernel(const uint32_t* flag) { gpu::spin_until(flag, 1); }

}  // namespace
}  // namespace suffuse

using namespace suffuse;

EMULATED void emulated_shuffle(void* out, int64_t bytes, int64_t which, int64_t by, int64_t width,
                               int64_t mask) {
  if (bytes == 4) {
    emulator::launch("shuffle_kernel", shuffle_kernel<float>, dim3(1), dim3(32), 0,
                     static_cast<float*>(out), which, by, width, mask);
  } else {
    emulator::launch("shuffle_kernel", shuffle_kernel<double>, dim3(1), dim3(32), 0,
                     static_cast<double*>(out), which, by, width, mask);
  }
}

EMULATED void emulated_vote(const int32_t* in, int32_t* out, int64_t mask) {
  emulator::launch("vote_kernel", vote_kernel, dim3(1), dim3(32), 0, in, out, mask);
}

EMULATED void emulated_barrier(const int32_t* in, int32_t* out, int64_t rounds) {
  emulator::launch("barrier_kernel", barrier_kernel, dim3(1), dim3(64), sizeof(HandOver), in, out,
                   rounds);
}

EMULATED void emulated_reduce(const void* in, void* sum, int64_t count, const char* type) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    emulator::launch("reduce_kernel", reduce_kernel<T>, dim3(3), dim3(64), 0,
                     static_cast<const T*>(in), static_cast<T*>(sum), count);
  };
  const std::string name = type;
  if (name == "float32") run(float{});
  if (name == "float64") run(double{});
  if (name == "int32") run(int32_t{});
  if (name == "uint32") run(uint32_t{});
  if (name == "uint64") run(uint64_t{});
}

EMULATED void emulated_atomic(const void* in, void* place, void* out, int64_t which,
                              const char* type) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    emulator::launch("atomic_kernel", atomic_kernel<T>, dim3(2), dim3(48), 0,
                     static_cast<const T*>(in), static_cast<T*>(place), static_cast<T*>(out),
                     which);
  };
  const std::string name = type;
  if (name == "float32") run(float{});
  if (name == "float64") run(double{});
  if (name == "int32") run(int{});
  if (name == "uint32") run(unsigned{});
  if (name == "uint64") run(0ull);
}

EMULATED void emulated_chain(void* flags, int32_t* sums, int64_t bytes, int64_t ready) {
  if (bytes == 4) {
    emulator::launch("chain_kernel", chain_kernel<uint32_t>, dim3(5), dim3(32), 0,
                     static_cast<uint32_t*>(flags), sums, ready);
  } else {
    emulator::launch("chain_kernel", chain_kernel<uint64_t>, dim3(5), dim3(32), 0,
                     static_cast<uint64_t*>(flags), sums, ready);
  }
}

EMULATED void emulated_within_warp(uint32_t* flag, int32_t* value, int32_t* out) {
  emulator::launch("within_warp_kernel", within_warp_kernel, dim3(1), dim3(2), 0, flag, value, out);
}

EMULATED void emulated_forever(const uint32_t* flag) {
  emulator::launch("forever_kernel", forever_kernel, dim3(1), dim3(1), 0, flag);
}
