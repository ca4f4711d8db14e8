// The sums over the lanes of as many vectors as a vector has lanes.
#pragma once

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

// Lane i: the sum of r[i]'s lanes, always in the same order. Half the shuffles of a transpose.
template <class V>
SUFFUSE_INLINE V sum_lanes(const V (&r)[V::N]) {
  V s[V::N];
  for (int i = 0; i < V::N; i++) s[i] = r[i];
  transpose(s);
  for (int width = V::N / 2; width >= 1; width /= 2) {
    for (int i = 0; i < width; i++) s[i] += s[i + width];
  }
  return s[0];
}

#if defined(__AVX512F__)
SUFFUSE_INLINE Vec<float> sum_lanes(const Vec<float> (&r)[16]) {
  __m512 s[8], q[4], h[2];
  for (int i = 0; i < 8; i++) {  // in each quarter: two of r[2i] and two of r[2i + 1]
    const __m512 a = r[2 * i].v, b = r[2 * i + 1].v;
    s[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 4; i++) {  // in each quarter: one of each of r[4i] to r[4i + 3]
    const __m512d a = _mm512_castps_pd(s[2 * i]), b = _mm512_castps_pd(s[2 * i + 1]);
    q[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int i = 0; i < 2; i++) {  // quarters added up in pairs
    const __m512 a = q[2 * i], b = q[2 * i + 1];
    h[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  return Vec<float>(_mm512_add_ps(_mm512_shuffle_f32x4(h[0], h[1], 0x88),
                                  _mm512_shuffle_f32x4(h[0], h[1], 0xdd)));
}
#elif defined(__AVX2__)
SUFFUSE_INLINE Vec<float> sum_lanes(const Vec<float> (&r)[8]) {
  __m256 s[4], q[2];
  for (int i = 0; i < 4; i++) {  // in each half: two of r[2i] and two of r[2i + 1]
    const __m256 a = r[2 * i].v, b = r[2 * i + 1].v;
    s[i] = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 2; i++) {  // in each half: one of each of r[4i] to r[4i + 3]
    const __m256 a = s[2 * i], b = s[2 * i + 1];
    q[i] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  return Vec<float>(_mm256_add_ps(_mm256_permute2f128_ps(q[0], q[1], 0x20),
                                  _mm256_permute2f128_ps(q[0], q[1], 0x31)));
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
