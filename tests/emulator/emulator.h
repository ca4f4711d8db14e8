// Executes CUDA kernels on the CPU: one fiber a CUDA thread, one block after another, every access
// to memory checked. The words of csrc/cuda call this interface; launchers of tests call
// `launch`. The engine knows nothing of kernels.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

// How the products of a tensor-core instruction are added up.
enum class MmaRounding : int32_t {
  ideal,       // exact sum, rounded once
  truncating,  // aligned to the largest term, cut off below 24 bits, 8 products at a time
};

struct Options {
  bool races = true;     // happens-before detector
  bool counters = true;  // sectors, wavefronts
  uint32_t seed = 0;     // 0: ascending warps and lanes; else a random order at every pass,
                         // and approximations moved within their documented error
  MmaRounding mma = MmaRounding::ideal;
};

// Requests are warp-wide: the k-th execution of one instruction by each lane of a warp since all of
// them last came together.
struct Traffic {
  uint64_t requests = 0;
  uint64_t sectors = 0;   // 32-byte sectors (global) or wavefronts (shared) that were needed
  uint64_t ideal = 0;     // what the same bytes would need at best
  uint64_t distinct = 0;  // global: distinct sectors of the launch, compulsory traffic
  uint64_t bytes = 0;
};

struct Counters {
  Traffic global_load, global_store, shared_load, shared_store, matrix_load;
  Traffic tensor_load, tensor_store;  // TMA, in 32-byte sectors
  uint64_t mma = 0, wgmma = 0, shuffles = 0, votes = 0, atomics = 0, copies = 0, barriers = 0;
  uint64_t accesses = 0, switches = 0;
};

// `sites`: the file:line of every access that takes part.
struct Finding {
  std::string kind, text;
  std::vector<std::string> sites;
};

struct Report {
  std::vector<Finding> findings;  // one for each kind and pair of source positions, at most 50
  Counters counters;
  double seconds = 0;
};

// Device memory: buffers apart from each other, filled with 0xFF (NaN), uninitialised until
// written. `reset` frees all.
void* allocate(size_t bytes, const char* name, bool initialised);
void reset();

// Runs body(context) once for every thread of the launch.
Report run(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const Options& options,
           void (*body)(const void*), const void* context);

// Not instrumented: the arguments lie in host memory until the kernel has its copy.
#define EMULATOR_UNSEEN __attribute__((no_sanitize("thread")))

template <class... P, class... A>
Report launch(const char* name, const Options& options, void (*kernel)(P...), dim3 grid, dim3 block,
              size_t shared_bytes, A... arguments) {
  const auto call = [=]() EMULATOR_UNSEEN { kernel(arguments...); };
  return run(
      name, grid, block, shared_bytes, options,
      [](const void* context) EMULATOR_UNSEEN { (*static_cast<decltype(call)*>(context))(); },
      &call);
}

// For tests that are driven from Python (interface.cpp): with the options that were set last; the
// report is kept. Several launches of one call add up.
const Options& current_options();
void keep(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const Report& report);

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
            A... arguments) {
  keep(name, grid, block, shared_bytes,
       launch(name, current_options(), kernel, grid, block, shared_bytes, arguments...));
}

// ---- what the words of csrc/cuda call ---------------------------------------------------------

struct Where {
  const char* file;
  int line;
};

__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_size();
__attribute__((const)) dim3 grid_size();
int lane_index();

// The block's shared memory; fails where the launch gave less than `bytes`.
void* shared_memory(size_t bytes, size_t alignment, Where where);

// Ends the launch with a finding.
[[noreturn]] void fail(const char* kind, const std::string& text, Where where);

// Named barrier `id` for `threads` threads (0: all of the block). `arrive` does not wait.
void barrier_sync(int id, int threads, Where where);
void barrier_arrive(int id, int threads, Where where);
void warp_sync(uint32_t mask, Where where);

// One operation of the lanes in `mask`: each deposits its operands, the last to come runs `all`
// for them. Lanes that meet in different operations are a finding.
struct Lanes {
  uint32_t mask;
  const void* in[32];
  void* out[32];
};
void collective(const char* kind, uint32_t mask, const void* in, void* out,
                void (*all)(const Lanes&), Where where);
void count_shuffle();
void count_vote();

// One vector access of 1 to 16 bytes.
void load(const void* p, void* value, size_t bytes, Where where);
void store(void* p, const void* value, size_t bytes, Where where);
// Around a read-modify-write that the word does itself with instrumentation off.
void atomic(void* p, size_t bytes, Where where);

// Release and acquire at device scope, of an integer of 4 or 8 bytes.
void store_release(void* p, const void* value, size_t bytes, Where where);
void load_acquire(const void* p, void* value, size_t bytes, Where where);
// A lane that polls calls this between two looks; where nobody else can run, that is a deadlock.
void spin(Where where);
void thread_fence();

void load_matrix(uint32_t* r, const void* row, int count, bool transposed, Where where);
enum class MmaType { f16, bf16, tf32 };
// m16n8k16 (f16, bf16) or m16n8k8 (tf32); d may be c.
void mma(float* d, const uint32_t* a, const uint32_t* b, const float* c, MmaType type, Where where);

void copy_async(void* shared, const void* global, int bytes, int source_bytes, Where where);
void copy_async_commit();
void copy_async_wait(int pending);

// The exact value, moved within `max_ulp` (f32 ulps) or by `max_relative` under a seed.
float approximate(float exact, int max_ulp);
float approximate_relative(float exact, float max_relative);

// ---- Hopper ----------------------------------------------------------------------------------

void mbarrier_init(uint64_t* barrier, int count, Where where);
void mbarrier_invalidate(uint64_t* barrier, Where where);
void mbarrier_arrive(uint64_t* barrier, int expected_bytes, Where where);
// True once the phase of that parity is complete; `mbarrier_wait` yields until then.
bool mbarrier_test(uint64_t* barrier, uint32_t parity, Where where);
void mbarrier_wait(uint64_t* barrier, uint32_t parity, Where where);
void fence_mbarrier_init();
void fence_async();  // fence.proxy.async

enum class Swizzle : int32_t { none, b32, b64, b128 };
// What a CUtensorMap says, laid out by the host half of the vocabulary in the same 128 bytes.
struct TensorMap {
  void* address;
  int32_t rank, element_bytes;
  uint64_t size[5], stride[4];  // elements; bytes, innermost left out
  uint32_t box[5];
  Swizzle swizzle;
  bool rounds_to_tf32;
};
void tensor_load(void* shared, const TensorMap& map, const int32_t* coordinates, int rank,
                 uint64_t* barrier, Where where);
void tensor_store(const TensorMap& map, const int32_t* coordinates, int rank, const void* shared,
                  Where where);
void bulk_commit();
// read_only: until the sources may be overwritten.
void bulk_wait(int pending, bool read_only, Where where);

// The address that PTX and matrix descriptors take for a pointer to shared memory.
uint32_t shared_address(const void* p, Where where);
struct Registers {  // an array of a kernel that stands for registers
  const void* begin;
  size_t bytes;
};
void wgmma_fence(const Registers* listed, int count, Where where);
// d += or = a b, 64 x n x 16 (f16, bf16) or 64 x n x 8 (tf32). a: four registers or, where
// `a_registers` is null, a descriptor.
void wgmma(float* d, int n, MmaType type, const uint32_t* a_registers, uint64_t a_descriptor,
           uint64_t b_descriptor, bool a_transposed, bool b_transposed, bool accumulate,
           Where where);
void wgmma_commit(Where where);
// Gives the listed registers back, where their products are through.
void wgmma_wait(int pending, const Registers* listed, int count, Where where);
void set_max_registers(int count, bool increase, Where where);

}  // namespace emulator
