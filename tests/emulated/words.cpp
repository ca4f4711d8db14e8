// Kernels that show what each word of csrc/cuda gives, for test_words.py.
#include "cuda/vocab.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

dim3 size3(int64_t x, int64_t y = 1, int64_t z = 1) {
  return {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
}

// ---- memory -----------------------------------------------------------------------------------

template <class V>
struct VectorState {
  V values[32];
};

// From global to shared memory, and back turned by one thread.
template <class V>
__global__ void vectors_kernel(const V* in, V* out, V* again) {
  auto& s = gpu::shared<VectorState<V>>();
  const int t = static_cast<int>(threadIdx.x);
  gpu::store_vector(&s.values[t], gpu::load_vector<V>(in + t));
  __syncthreads();
  gpu::store_vector(out + t, gpu::load_vector<V>(&s.values[(t + 1) % 32]));
  gpu::store_vector_once(again + t, gpu::load_vector_once<V>(in + t));
}

__global__ void shared_kernel(int64_t* out) {
  out[0] = static_cast<int64_t>(reinterpret_cast<uintptr_t>(&gpu::shared<VectorState<float>>()));
}

// ---- convert ----------------------------------------------------------------------------------

// Every bit pattern of S: one by one, and in pairs as the high and the low one.
template <class S>
__global__ void widen_kernel(float* out, float* low, float* high) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = gpu::to_float(S{static_cast<uint16_t>(i)});
  low[i] = gpu::unpack<S>(i | 0x3c000000u).x;
  high[i] = gpu::unpack<S>(i << 16 | 0x3c00u).y;
}

template <class S>
__global__ void narrow_kernel(const float* in, S* out, uint32_t* pairs, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  out[i] = gpu::from_float<S>(in[i]);
  pairs[i] = gpu::pack<S>(in[i], in[count - 1 - i]);
}

__global__ void tf32_kernel(const float* in, float* same, uint32_t* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  same[i] = gpu::from_float<float>(gpu::to_float(in[i]));
  out[i] = gpu::to_tf32(in[i]);
}

// ---- math -------------------------------------------------------------------------------------

__global__ void math_kernel(const float* in, float* out, int64_t count, int64_t word) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float x = in[i];
  out[i] = word == 0   ? gpu::exp2_approx(x)
           : word == 1 ? gpu::log2_approx(x)
           : word == 2 ? gpu::reciprocal_approx(x)
           : word == 3 ? gpu::rsqrt_approx(x)
                       : gpu::tanh_approx(x);
}

// ---- warp -------------------------------------------------------------------------------------

// By thread, x the fastest: lane, warp, whether it was elected in each of two elections.
__global__ void place_kernel(int32_t* out) {
  const uint32_t t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const bool first = gpu::elect_one();
  const bool second = gpu::elect_one();
  out[4 * t] = static_cast<int32_t>(gpu::lane());
  out[4 * t + 1] = static_cast<int32_t>(gpu::warp());
  out[4 * t + 2] = first;
  out[4 * t + 3] = second;
}

// ---- mma --------------------------------------------------------------------------------------

struct MatrixState {
  alignas(16) uint16_t rows[32][8];
};

// r[lane][m], from matrices whose row i is at the address that lane i gives: row (5 i) % 32 of in.
template <int kCount, bool kTransposed>
__global__ void load_matrix_kernel(const uint4* in, uint32_t* out) {
  auto& s = gpu::shared<MatrixState>();
  const uint32_t t = threadIdx.x;
  gpu::store_vector(s.rows[t], gpu::load_vector<uint4>(in + t));
  __syncwarp();
  const void* row = s.rows[5 * t % 32];
  uint32_t r[kCount];
  if constexpr (kTransposed) {
    if constexpr (kCount == 1) gpu::load_matrix_x1_transposed(r, row);
    if constexpr (kCount == 2) gpu::load_matrix_x2_transposed(r, row);
    if constexpr (kCount == 4) gpu::load_matrix_x4_transposed(r, row);
  } else {
    if constexpr (kCount == 1) gpu::load_matrix_x1(r, row);
    if constexpr (kCount == 2) gpu::load_matrix_x2(r, row);
    if constexpr (kCount == 4) gpu::load_matrix_x4(r, row);
  }
  for (int m = 0; m < kCount; m++) out[t * kCount + m] = r[m];
}

// Word: 0 bfloat16, 1 float16, 2 tf32. Registers of the lanes one after another.
template <int kWord>
__global__ void mma_kernel(const uint32_t* a_all, const uint32_t* b_all, float* d_all) {
  const uint32_t t = threadIdx.x;
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; i++) a[i] = a_all[4 * t + i];
  for (int i = 0; i < 2; i++) b[i] = b_all[2 * t + i];
  for (int i = 0; i < 4; i++) d[i] = d_all[4 * t + i];
  if constexpr (kWord == 0) gpu::mma_m16n8k16<bfloat16>(d, a, b);
  if constexpr (kWord == 1) gpu::mma_m16n8k16<float16>(d, a, b);
  if constexpr (kWord == 2) gpu::mma_m16n8k8_tf32(d, a, b);
  for (int i = 0; i < 4; i++) d_all[4 * t + i] = d[i];
}

// ---- copy -------------------------------------------------------------------------------------

// Three groups of 32 pieces each; `inside` says which pieces are copied.
template <int kBytes>
struct CopyState {
  alignas(16) unsigned char stages[3][32 * kBytes];
};

template <int kBytes>
__global__ void copy_kernel(const unsigned char* in, const int32_t* inside, unsigned char* out) {
  auto& s = gpu::shared<CopyState<kBytes>>();
  const int t = static_cast<int>(threadIdx.x);
  for (int g = 0; g < 3; g++) {
    const int piece = 32 * g + t;
    gpu::copy_async<kBytes>(&s.stages[g][kBytes * t], in + kBytes * piece, inside[piece] != 0);
    gpu::copy_async_commit();
  }
  gpu::copy_async_wait<1>();  // the last may be under way
  for (int i = 0; i < 2 * kBytes; i++) {
    const int group = i / kBytes, at = kBytes * t + i % kBytes;
    out[32 * kBytes * group + at] = s.stages[group][at];
  }
  gpu::copy_async_wait<0>();
  for (int i = 0; i < kBytes; i++) out[64 * kBytes + kBytes * t + i] = s.stages[2][kBytes * t + i];
}

}  // namespace
}  // namespace suffuse

using suffuse::size3;

EMULATED void emulated_vectors(const void* in, void* out, void* again, int64_t floats) {
  using namespace suffuse;
  const auto run = [&](auto value) {
    using V = decltype(value);
    emulator::launch("vectors_kernel", vectors_kernel<V>, size3(1), size3(32),
                     sizeof(VectorState<V>), static_cast<const V*>(in), static_cast<V*>(out),
                     static_cast<V*>(again));
  };
  if (floats == 1) run(float{});
  if (floats == 2) run(float2{});
  if (floats == 4) run(float4{});
  if (floats == -1) run(uint32_t{});
  if (floats == -2) run(uint2{});
  if (floats == -4) run(uint4{});
}

EMULATED void emulated_shared(int64_t* out, int64_t missing) {
  using namespace suffuse;
  emulator::launch("shared_kernel", shared_kernel, size3(1), size3(1),
                   sizeof(VectorState<float>) - static_cast<size_t>(missing), out);
}

EMULATED void emulated_widen(float* out, float* low, float* high, int64_t is_half) {
  using namespace suffuse;
  emulator::launch("widen_kernel", is_half ? widen_kernel<float16> : widen_kernel<bfloat16>,
                   size3(256), size3(256), 0, out, low, high);
}

EMULATED void emulated_narrow(const float* in, void* out, uint32_t* pairs, int64_t count,
                              int64_t is_half) {
  using namespace suffuse;
  const dim3 grid = size3((count + 255) / 256);
  if (is_half) {
    emulator::launch("narrow_kernel", narrow_kernel<float16>, grid, size3(256), 0, in,
                     static_cast<float16*>(out), pairs, count);
  } else {
    emulator::launch("narrow_kernel", narrow_kernel<bfloat16>, grid, size3(256), 0, in,
                     static_cast<bfloat16*>(out), pairs, count);
  }
}

EMULATED void emulated_tf32(const float* in, float* same, uint32_t* out, int64_t count) {
  emulator::launch("tf32_kernel", suffuse::tf32_kernel, size3((count + 255) / 256), size3(256), 0,
                   in, same, out, count);
}

EMULATED void emulated_math(const float* in, float* out, int64_t count, int64_t word) {
  emulator::launch("math_kernel", suffuse::math_kernel, size3((count + 255) / 256), size3(256), 0,
                   in, out, count, word);
}

EMULATED void emulated_place(int32_t* out, int64_t x, int64_t y, int64_t z) {
  emulator::launch("place_kernel", suffuse::place_kernel, size3(1), size3(x, y, z), 0, out);
}

EMULATED void emulated_load_matrix(const uint4* in, uint32_t* out, int64_t count,
                                   int64_t transposed) {
  using namespace suffuse;
  const auto run = [&](auto* kernel) {
    emulator::launch("load_matrix_kernel", kernel, size3(1), size3(32), sizeof(MatrixState), in,
                     out);
  };
  if (count == 1) run(transposed ? load_matrix_kernel<1, true> : load_matrix_kernel<1, false>);
  if (count == 2) run(transposed ? load_matrix_kernel<2, true> : load_matrix_kernel<2, false>);
  if (count == 4) run(transposed ? load_matrix_kernel<4, true> : load_matrix_kernel<4, false>);
}

EMULATED void emulated_mma(const uint32_t* a, const uint32_t* b, float* d, int64_t word) {
  using namespace suffuse;
  emulator::launch("mma_kernel",
                   word == 0   ? mma_kernel<0>
                   : word == 1 ? mma_kernel<1>
                               : mma_kernel<2>,
                   size3(1), size3(32), 0, a, b, d);
}

EMULATED void emulated_copy(const unsigned char* in, const int32_t* inside, unsigned char* out,
                            int64_t bytes) {
  using namespace suffuse;
  emulator::launch("copy_kernel",
                   bytes == 4   ? copy_kernel<4>
                   : bytes == 8 ? copy_kernel<8>
                                : copy_kernel<16>,
                   size3(1), size3(32), static_cast<size_t>(96 * bytes), in, inside, out);
}
