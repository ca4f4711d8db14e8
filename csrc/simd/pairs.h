// Words on pairs of lanes, for random numbers and rotations.
//
// clang-format off
//   multiply_words(a, b)   Int<Vec<double>>: the product of the low halves of the 64-bit lanes
//   interleave(a, b)       Vec<float>: a becomes a0 b0 a1 b1 ..., b the rest
//   swap_pairs(x)          any vector: x1 x0 x3 x2 ...
// clang-format on
#pragma once

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

using Int64 = Int<Vec<double>>;

#if defined(__AVX512F__)
SUFFUSE_INLINE Int64 multiply_words(Int64 a, Int64 b) {
  return Int64(reinterpret_cast<Vec<double>::RawInt>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a.v), reinterpret_cast<__m512i>(b.v))));
}
SUFFUSE_INLINE void interleave(Vec<float>& a, Vec<float>& b) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  const __m512 front = _mm512_permutex2var_ps(a.v, low, b.v);
  b.v = _mm512_permutex2var_ps(a.v, high, b.v);
  a.v = front;
}
#elif defined(__AVX2__)
SUFFUSE_INLINE Int64 multiply_words(Int64 a, Int64 b) {
  return Int64(reinterpret_cast<Vec<double>::RawInt>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a.v), reinterpret_cast<__m256i>(b.v))));
}
SUFFUSE_INLINE void interleave(Vec<float>& a, Vec<float>& b) {
  const __m256 low = _mm256_unpacklo_ps(a.v, b.v), high = _mm256_unpackhi_ps(a.v, b.v);
  a.v = _mm256_permute2f128_ps(low, high, 0x20);
  b.v = _mm256_permute2f128_ps(low, high, 0x31);
}
#else
SUFFUSE_INLINE Int64 multiply_words(Int64 a, Int64 b) {
  const Int64 low(0xffffffff);
  return Int64((a & low).u() * (b & low).u());
}
SUFFUSE_INLINE void interleave(Vec<float>& a, Vec<float>& b) {
  const Vec<float> x = a, y = b;
  constexpr int half = Vec<float>::N / 2;
  for (int i = 0; i < half; i++) {
    a.v[2 * i] = x.v[i];
    a.v[2 * i + 1] = y.v[i];
    b.v[2 * i] = x.v[half + i];
    b.v[2 * i + 1] = y.v[half + i];
  }
}
#endif

template <class V>
SUFFUSE_INLINE V swap_pairs(V x) {
  V r;
  for (int i = 0; i < V::N; i++) r.v[i] = x.v[i ^ 1];
  return r;
}
#if defined(__AVX512F__)
SUFFUSE_INLINE Vec<float> swap_pairs(Vec<float> x) {
  return Vec<float>(_mm512_permute_ps(x.v, 0xb1));
}
#elif defined(__AVX2__)
SUFFUSE_INLINE Vec<float> swap_pairs(Vec<float> x) {
  return Vec<float>(_mm256_permute_ps(x.v, 0xb1));
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
