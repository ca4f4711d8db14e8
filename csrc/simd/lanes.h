// Raw vectors in the vector extension of GCC and clang, as wide as the ISA's registers, and the
// fused multiply-add on them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/macros.h"

// Whether the machine multiplies and adds in one instruction; clang does not say it by
// __FP_FAST_FMA.
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
#define SUFFUSE_FAST_FMA 1
#else
#define SUFFUSE_FAST_FMA 0
#endif

namespace suffuse {
namespace SUFFUSE_ISA {

#if defined(__AVX512F__)
constexpr int kVecBytes = 64;
#elif defined(__AVX2__)
constexpr int kVecBytes = 32;
#else
constexpr int kVecBytes = 16;
#endif

// The raw vectors. Full specialisations, because GCC forgets the attribute on a type that depends
// on a parameter.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  using Signed = int32_t;
  typedef float Raw __attribute__((vector_size(kVecBytes)));
  typedef int32_t RawInt __attribute__((vector_size(kVecBytes)));
  typedef uint32_t RawUnsigned __attribute__((vector_size(kVecBytes)));
};
template <>
struct Lanes<double> {
  using Signed = int64_t;
  typedef double Raw __attribute__((vector_size(kVecBytes)));
  typedef int64_t RawInt __attribute__((vector_size(kVecBytes)));
  typedef uint64_t RawUnsigned __attribute__((vector_size(kVecBytes)));
};

// One element.
SUFFUSE_INLINE float lane_sqrt(float x) { return __builtin_sqrtf(x); }
SUFFUSE_INLINE double lane_sqrt(double x) { return __builtin_sqrt(x); }
SUFFUSE_INLINE float lane_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
SUFFUSE_INLINE double lane_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class T>
SUFFUSE_INLINE typename Lanes<T>::Raw fma_lanes(typename Lanes<T>::Raw a, typename Lanes<T>::Raw b,
                                                typename Lanes<T>::Raw c) {
  typename Lanes<T>::Raw r{};
  for (size_t i = 0; i < sizeof a / sizeof(T); ++i) r[i] = lane_fma(a[i], b[i], c[i]);
  return r;
}
// Whether any bit is set.
template <class Raw>
SUFFUSE_INLINE bool any_bit(Raw raw) {
  uint64_t words[sizeof(Raw) / 8], r = 0;
  __builtin_memcpy(words, &raw, sizeof raw);
  for (uint64_t word : words) r |= word;
  return r != 0;
}
#if !SUFFUSE_FAST_FMA
// Without an instruction: the product is exact in double; the sum is rounded to double, then to
// float. That differs from one rounding only where the double lies half way between two floats or
// the float is subnormal: libm does those.
template <>
SUFFUSE_INLINE Lanes<float>::Raw fma_lanes<float>(Lanes<float>::Raw a, Lanes<float>::Raw b,
                                                  Lanes<float>::Raw c) {
  using Double = Lanes<double>::Raw;
  using Word = Lanes<float>::RawInt;
  static_assert(sizeof(Double) == 16, "machines with wider vectors have the instruction");
  const Double front = Double{a[0], a[1]} * Double{b[0], b[1]} + Double{c[0], c[1]};
  const Double back = Double{a[2], a[3]} * Double{b[2], b[3]} + Double{c[2], c[3]};
  const Word p = reinterpret_cast<Word>(front), q = reinterpret_cast<Word>(back);
  const Word low = {p[0], p[2], q[0], q[2]};  // little-endian, like every machine this is for
  const Word high = Word{p[1], p[3], q[1], q[3]} & 0x7fffffff;
  const Word halfway = (low & 0x1fffffff) == 0x10000000;
  const Word subnormal = (high < 0x38100000) & ((low | high) != 0);  // 0 < |sum| < 2^-126
  using Raw = Lanes<float>::Raw;
  Raw r = {static_cast<float>(front[0]), static_cast<float>(front[1]), static_cast<float>(back[0]),
           static_cast<float>(back[1])};
  if (__builtin_expect(any_bit(halfway | subnormal), 0))
    for (int i = 0; i < 4; ++i) r[i] = lane_fma(a[i], b[i], c[i]);
  return r;
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
