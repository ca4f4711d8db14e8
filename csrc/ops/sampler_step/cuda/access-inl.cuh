// Storage types in registers, and groups of W elements moved in 16-byte words (8-byte ones where a
// group is no larger) where their address allows.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/dtype.h"

namespace suffuse {

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(bfloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float widen(float16 x) { return __half2float(__ushort_as_half(x.bits)); }

// Rounds to nearest even; NaN stays NaN.
__device__ __forceinline__ void narrow(float x, float& out) { out = x; }
__device__ __forceinline__ void narrow(double x, double& out) { out = x; }
__device__ __forceinline__ void narrow(float x, bfloat16& out) {
  const uint32_t word = __float_as_uint(x);
  const uint32_t rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(x != x ? word >> 16 | 0x40u : rounded);
}
__device__ __forceinline__ void narrow(float x, float16& out) {
  out.bits = __half_as_ushort(__float2half_rn(x));
}

template <int kBytes>
struct GroupWord {
  using type = uint4;
};
template <>
struct GroupWord<8> {
  using type = uint2;
};

template <class Word>
__device__ __forceinline__ bool is_aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Word) == 0;
}

// Elements [first, last) of the W at p; the others are 0 and not touched.
template <int W, class S, class T>
__device__ __forceinline__ void load_group(const S* p, int first, int last, T (&out)[W]) {
  using Word = typename GroupWord<W * sizeof(S)>::type;
  constexpr int kWords = W * sizeof(S) / sizeof(Word);
  if (last - first == W && is_aligned<Word>(p)) {
    alignas(16) S values[W];
#pragma unroll
    for (int j = 0; j < kWords; j++) {
      reinterpret_cast<Word*>(values)[j] = reinterpret_cast<const Word*>(p)[j];
    }
#pragma unroll
    for (int k = 0; k < W; k++) out[k] = widen(values[k]);
  } else {
#pragma unroll
    for (int k = 0; k < W; k++) out[k] = k >= first && k < last ? widen(p[k]) : T(0);
  }
}

template <int W, class S, class T>
__device__ __forceinline__ void store_group(S* p, int first, int last, const T (&in)[W]) {
  using Word = typename GroupWord<W * sizeof(S)>::type;
  constexpr int kWords = W * sizeof(S) / sizeof(Word);
  alignas(16) S values[W];
#pragma unroll
  for (int k = 0; k < W; k++) narrow(in[k], values[k]);
  if (last - first == W && is_aligned<Word>(p)) {
#pragma unroll
    for (int j = 0; j < kWords; j++) {
      reinterpret_cast<Word*>(p)[j] = reinterpret_cast<const Word*>(values)[j];
    }
  } else {
#pragma unroll
    for (int k = 0; k < W; k++) {
      if (k >= first && k < last) p[k] = values[k];
    }
  }
}

}  // namespace suffuse
