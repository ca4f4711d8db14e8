// Vectors of 32-bit words that hold pairs of bfloat16, and an exponential for weights that are
// rounded to bfloat16. AVX-512 only.
//
// clang-format off
// load_pairs(p, n)         words of the first n of 32 bfloat16 at p, 0 to 32; the others are 0
// store_pairs(p, x, n)     the same back
// nearest_pairs(lo, hi)    words of lo and hi rounded to nearest, ties away from 0; exact for
//                          subnormal numbers; a NaN must not have all of its low 16 bits set
// low_half(x) high_half(x) Vec<float> of the halves of the words
// low_half_f16(x), high..  the same of float16 numbers; nearest_pairs_f16(lo, hi) the other way
// finite(x)                x, or 0 where it is infinite or NaN
// low_part(lo, hi, high)   nearest_pairs of what high = nearest_pairs(lo, hi) leaves of lo and hi,
//                          as far as finite: the two add up to a float16 number, and miss at most
//                          2^-16 of any other
// zip_rows(a, b)           of two rows of 32 bfloat16: a becomes the words (a_i, b_i) for the i of
//                          zip_column(0, .), b those for the i of zip_column(1, .)
// pair_rows(a, b)          likewise: a becomes those for i < 16, b the rest
// transpose_words(r)       Int r[16]: r[i] lane j <-> r[j] lane i
// nonzero_bytes(p)         bit k of 32 is set where byte k of p is not 0
// exp2_near(x)             2^x within 7.5e-5 of it, relative; 0 below 2^-126, inf above 2^128; NaN
//                          stays NaN
// clang-format on
#pragma once

#include "simd/vec.h"

#if defined(__AVX512F__)

namespace suffuse {
namespace SUFFUSE_ISA {

using Words = Int<Vec<float>>;

SUFFUSE_INLINE __mmask32 first_halves(int64_t n) {
  return n >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((uint32_t{1} << n) - 1);
}
SUFFUSE_INLINE Words load_pairs(const bfloat16* p, int64_t n) {
  return Words(_mm512_maskz_loadu_epi16(first_halves(n), p));
}
SUFFUSE_INLINE void store_pairs(bfloat16* p, Words x, int64_t n) {
  _mm512_mask_storeu_epi16(p, first_halves(n), x.v);
}

SUFFUSE_INLINE Words nearest_pairs(Vec<float> lo, Vec<float> hi) {
  const Words half(0x8000), a = shr<16>(bits(lo) + half), b = bits(hi) + half;
  return Words(_mm512_mask_blend_epi16(0xaaaaaaaau, a.v, b.v));
}
SUFFUSE_INLINE Vec<float> low_half(Words x) { return from_bits<Vec<float>>(shl<16>(x)); }
SUFFUSE_INLINE Vec<float> high_half(Words x) {
  return from_bits<Vec<float>>(x & Words(static_cast<int32_t>(0xffff0000)));
}

SUFFUSE_INLINE Vec<float> low_half_f16(Words x) {
  return Vec<float>(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(x.v)));
}
SUFFUSE_INLINE Vec<float> high_half_f16(Words x) { return low_half_f16(shr<16>(x)); }
SUFFUSE_INLINE Words nearest_pairs_f16(Vec<float> lo, Vec<float> hi) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const Words a(_mm512_cvtepu16_epi32(_mm512_cvtps_ph(lo.v, nearest)));
  const Words b(_mm512_cvtepu16_epi32(_mm512_cvtps_ph(hi.v, nearest)));
  return a | shl<16>(b);
}
SUFFUSE_INLINE Vec<float> finite(Vec<float> x) {
  return select(x - x == Vec<float>(0), x, Vec<float>(0));
}
SUFFUSE_INLINE Words low_part(Vec<float> lo, Vec<float> hi, Words high_part) {
  return nearest_pairs(finite(lo - low_half(high_part)), finite(hi - high_half(high_part)));
}

SUFFUSE_INLINE void zip_rows(Words& a, Words& b) {
  const __m512i low = _mm512_unpacklo_epi16(a.v, b.v);
  b.v = _mm512_unpackhi_epi16(a.v, b.v);
  a.v = low;
}
SUFFUSE_INLINE void pair_rows(Words& a, Words& b) {
  // Word i takes half i of a and half i of b, which counts from 32 on.
  const __m512i pairs =
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(0x10001));
  const __m512i low = _mm512_add_epi32(pairs, _mm512_set1_epi32(32 << 16));
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(0x100010));
  const __m512i front = _mm512_permutex2var_epi16(a.v, low, b.v);
  b.v = _mm512_permutex2var_epi16(a.v, high, b.v);
  a.v = front;
}
constexpr int zip_column(int half, int lane) { return lane / 4 * 8 + half * 4 + lane % 4; }

SUFFUSE_INLINE void transpose_words(Words (&r)[16]) {
  Vec<float> x[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = from_bits<Vec<float>>(r[i]);
  transpose(x);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = bits(x[i]);
}

SUFFUSE_INLINE uint32_t nonzero_bytes(const uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_test_epi8_mask(bytes, bytes);
}

SUFFUSE_INLINE Vec<float> exp2_near(Vec<float> x) {
  using V = Vec<float>;
  // x - floor(x), 0 for an infinite x; vscalefps takes floor(x).
  const V f(_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
  // 2^f on [0, 1], weighted to level the relative error (as in simd/math.h)
  V p = muladd(f, V(0.07802444696426392f), V(0.22606727480888367f));
  p = muladd(f, p, V(0.6958335041999817f));
  p = muladd(f, p, V(0.9999251961708069f));
  return scale2(p, x);
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse

#endif
