// Storage types in registers. A conversion to fewer bits rounds to nearest even (to_tf32: ties away
// from zero) and overflows to infinity; NaN stays NaN, of any payload.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace suffuse::gpu {

// The exact value.
SUFFUSE_DEVICE float to_float(float x) { return x; }
// The exact value.
SUFFUSE_DEVICE float to_float(bfloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
// The exact value. PTX: cvt.f32.f16.
SUFFUSE_DEVICE float to_float(float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// The nearest S: float, bfloat16 or float16. PTX: cvt.rn.bf16.f32, cvt.rn.f16.f32.
template <class S>
SUFFUSE_DEVICE S from_float(float x);
template <>
SUFFUSE_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
SUFFUSE_DEVICE bfloat16 from_float<bfloat16>(float x) {
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
SUFFUSE_DEVICE float16 from_float<float16>(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// Two S, bfloat16 or float16, in one register: `low` in bits 0 to 15, which is the first of the two
// in memory. PTX: cvt.rn.bf16x2.f32, cvt.rn.f16x2.f32.
template <class S>
SUFFUSE_DEVICE uint32_t pack(float low, float high);
template <>
SUFFUSE_DEVICE uint32_t pack<bfloat16>(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <>
SUFFUSE_DEVICE uint32_t pack<float16>(float low, float high) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

// The exact values of the two S in one register, x the low one. PTX: cvt.f32.f16.
template <class S>
SUFFUSE_DEVICE float2 unpack(uint32_t pair);
template <>
SUFFUSE_DEVICE float2 unpack<bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <>
SUFFUSE_DEVICE float2 unpack<float16>(uint32_t pair) {
  return {to_float(float16{static_cast<uint16_t>(pair)}),
          to_float(float16{static_cast<uint16_t>(pair >> 16)})};
}

// An operand of mma_m16n8k8_tf32: the float of 10 mantissa bits nearest to x, the larger of two;
// the low 13 bits are 0. PTX: cvt.rna.tf32.f32.
SUFFUSE_DEVICE uint32_t to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}

}  // namespace suffuse::gpu
