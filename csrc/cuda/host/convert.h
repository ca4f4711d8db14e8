// The host half of csrc/cuda/words/convert.cuh.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "cuda/host/cuda_functions.h"

namespace suffuse::gpu {

SUFFUSE_DEVICE float to_float(float x) { return x; }
SUFFUSE_DEVICE float to_float(bfloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
SUFFUSE_DEVICE float to_float(float16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return __uint_as_float(sign | ((magnitude << 13) + (112u << 23)));
  return ::copysignf(static_cast<float>(magnitude) * 0x1p-24f, __uint_as_float(sign));
}

template <class S>
SUFFUSE_DEVICE S from_float(float x);
template <>
SUFFUSE_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
SUFFUSE_DEVICE bfloat16 from_float<bfloat16>(float x) {
  if (x != x) return {0x7fff};
  const uint32_t word = __float_as_uint(x);
  return {static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1u)) >> 16)};
}
template <>
SUFFUSE_DEVICE float16 from_float<float16>(float x) {
  if (x != x) return {0x7fff};
  const uint32_t word = __float_as_uint(x), magnitude = word & 0x7fffffffu;
  const uint32_t sign = word >> 16 & 0x8000u;
  uint32_t bits;
  if (magnitude >= 0x477ff000u) {  // 65520, half way from the largest number to the next
    bits = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the smallest normal number
    bits = ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  } else {
    bits = static_cast<uint32_t>(::lrintf(__uint_as_float(magnitude) * 0x1p24f));
  }
  return {static_cast<uint16_t>(sign | bits)};
}

template <class S>
SUFFUSE_DEVICE uint32_t pack(float low, float high) {
  static_assert(sizeof(S) == 2);
  return from_float<S>(low).bits | static_cast<uint32_t>(from_float<S>(high).bits) << 16;
}

template <class S>
SUFFUSE_DEVICE float2 unpack(uint32_t pair) {
  static_assert(sizeof(S) == 2);
  return {to_float(S{static_cast<uint16_t>(pair)}), to_float(S{static_cast<uint16_t>(pair >> 16)})};
}

SUFFUSE_DEVICE uint32_t to_tf32(float x) {
  if (x != x) return 0x7fffffffu;
  return (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
}

}  // namespace suffuse::gpu
