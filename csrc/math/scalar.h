// The words of csrc/simd/vec.h for one float or double, on the host and on the device, so that a
// formula in csrc/math is written once. Vec's own words are found through its arguments.
//
// Everything is inlined by force: host code in here is compiled under several ISAs, and a shared
// out-of-line copy could be the one of an ISA that this CPU lacks.
#pragma once

#include <math.h>
#include <string.h>

#include <cstdint>

#include "common/macros.h"

namespace suffuse {

SUFFUSE_HD SUFFUSE_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
SUFFUSE_HD SUFFUSE_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }
// b where either is NaN, like the vector words.
SUFFUSE_HD SUFFUSE_INLINE float min(float a, float b) { return a < b ? a : b; }
SUFFUSE_HD SUFFUSE_INLINE float max(float a, float b) { return a > b ? a : b; }
SUFFUSE_HD SUFFUSE_INLINE double min(double a, double b) { return a < b ? a : b; }
SUFFUSE_HD SUFFUSE_INLINE double max(double a, double b) { return a > b ? a : b; }
SUFFUSE_HD SUFFUSE_INLINE float abs(float a) { return ::fabsf(a); }
SUFFUSE_HD SUFFUSE_INLINE double abs(double a) { return ::fabs(a); }
SUFFUSE_HD SUFFUSE_INLINE float sqrt(float a) { return ::sqrtf(a); }
SUFFUSE_HD SUFFUSE_INLINE float select(bool m, float a, float b) { return m ? a : b; }

// One 32-bit integer with the words of Int<Vec<float>>.
struct Word32 {
  uint32_t v;

  Word32() = default;
  SUFFUSE_HD SUFFUSE_INLINE explicit Word32(int32_t x) : v(static_cast<uint32_t>(x)) {}

  friend SUFFUSE_HD SUFFUSE_INLINE Word32 operator+(Word32 a, Word32 b) { return make(a.v + b.v); }
  friend SUFFUSE_HD SUFFUSE_INLINE Word32 operator-(Word32 a, Word32 b) { return make(a.v - b.v); }
  friend SUFFUSE_HD SUFFUSE_INLINE Word32 operator&(Word32 a, Word32 b) { return make(a.v & b.v); }
  friend SUFFUSE_HD SUFFUSE_INLINE Word32 operator|(Word32 a, Word32 b) { return make(a.v | b.v); }
  friend SUFFUSE_HD SUFFUSE_INLINE Word32 operator^(Word32 a, Word32 b) { return make(a.v ^ b.v); }
  friend SUFFUSE_HD SUFFUSE_INLINE bool nonzero(Word32 a) { return a.v != 0; }
  friend SUFFUSE_HD SUFFUSE_INLINE float to_float(Word32 a) {
    return static_cast<float>(static_cast<int32_t>(a.v));
  }
  static SUFFUSE_HD SUFFUSE_INLINE Word32 make(uint32_t bits) {
    Word32 r;
    r.v = bits;
    return r;
  }
};

template <int k>
SUFFUSE_HD SUFFUSE_INLINE Word32 shl(Word32 a) {
  return Word32::make(a.v << k);
}
template <int k>
SUFFUSE_HD SUFFUSE_INLINE Word32 shr(Word32 a) {
  return Word32::make(a.v >> k);
}
template <int k>
SUFFUSE_HD SUFFUSE_INLINE Word32 sar(Word32 a) {
  return Word32(static_cast<int32_t>(a.v) >> k);
}

SUFFUSE_HD SUFFUSE_INLINE Word32 bits(float x) {
  uint32_t word;
  ::memcpy(&word, &x, sizeof word);
  return Word32::make(word);
}

// Number<F>::from_bits, where F is float or a vector of floats.
template <class F>
struct Number {
  template <class I>
  static SUFFUSE_INLINE F from_bits(I i) {
    return F::from_bits(i);
  }
};
template <>
struct Number<float> {
  static SUFFUSE_HD SUFFUSE_INLINE float from_bits(Word32 i) {
    float x;
    ::memcpy(&x, &i.v, sizeof x);
    return x;
  }
};

}  // namespace suffuse
