// A kernel that calls every function of CUDA C++ that the host half of the vocabulary supplies, but
// for those in words_threads.cpp. nvcc compiles it too.
#pragma once

#include "cuda/vocab.cuh"

namespace suffuse {

// By element: what is made of a pair of numbers of 4 bytes.
constexpr int kWordResults = 22;

__global__ void word_functions_kernel(const uint32_t* in, uint32_t* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const uint32_t a = __ldg(in + i), b = __ldg(in + count - 1 - i);
  const int p = static_cast<int>(a), q = static_cast<int>(b);
  const float x = __uint_as_float(a), y = __int_as_float(q);
  const uint32_t results[kWordResults] = {
      static_cast<uint32_t>(__popc(a)),
      static_cast<uint32_t>(__ffs(p)),
      static_cast<uint32_t>(__clz(p)),
      __umulhi(a, b),
      ::min(a, b),
      ::max(a, b),
      static_cast<uint32_t>(::min(p, q)),
      static_cast<uint32_t>(::max(p, q)),
      __float_as_uint(::min(x, y)),
      __float_as_uint(::max(x, y)),
      static_cast<uint32_t>(__float_as_int(x)),
      __float_as_uint(__fadd_rn(x, y)),
      __float_as_uint(__fsub_rn(x, y)),
      __float_as_uint(__fmul_rn(x, y)),
      __float_as_uint(__fmaf_rn(x, y, 1.f)),
      __float_as_uint(__fdiv_rn(x, y)),
      __float_as_uint(__fsqrt_rn(x)),
      __float_as_uint(fmaf(x, y, 1.f)),
      __float_as_uint(fmaxf(x, y)),
      __float_as_uint(fabsf(x)),
      __float_as_uint(sqrtf(x)),
      __float_as_uint(rsqrtf(x)),
  };
  for (int k = 0; k < kWordResults; k++) out[k * count + i] = results[k];
}

// The same of 8 bytes.
constexpr int kLongResults = 10;

__global__ void long_functions_kernel(const long long* in, long long* out, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const long long a = in[i], b = in[count - 1 - i];
  const auto p = static_cast<unsigned long long>(a), q = static_cast<unsigned long long>(b);
  const double x = __longlong_as_double(a), y = __longlong_as_double(b);
  const long long results[kLongResults] = {
      __popcll(p),
      __ffsll(a),
      __clzll(a),
      ::min(a, b),
      ::max(a, b),
      static_cast<long long>(::min(p, q)),
      static_cast<long long>(::max(p, q)),
      __double_as_longlong(::min(x, y)),
      __double_as_longlong(::max(x, y)),
      __double_as_longlong(rsqrt(x)),
  };
  __threadfence_block();
  __threadfence();
  __threadfence_system();
  for (int k = 0; k < kLongResults; k++) out[k * count + i] = results[k];
}

// The qualifiers of a kernel; stops itself where a number is negative.
__global__ void __launch_bounds__(64, 2) trap_kernel(const __grid_constant__ int2 numbers) {
  if (numbers.x < 0) __trap();
}

}  // namespace suffuse
