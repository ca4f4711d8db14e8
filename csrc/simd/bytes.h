// Bytes as vectors.
//
//   load_bytes<V>(p)   Int<V>: V::N bytes, widened with zeros
#pragma once

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <class V>
SUFFUSE_INLINE Int<V> load_bytes(const uint8_t* p) {
  Int<V> r(0);
  for (int i = 0; i < V::N; ++i) r.v[i] = p[i];
  return r;
}
#if defined(__AVX512F__)
template <>
SUFFUSE_INLINE Int<Vec<float>> load_bytes<Vec<float>>(const uint8_t* p) {
  return Int<Vec<float>>(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#elif defined(__AVX2__)
template <>
SUFFUSE_INLINE Int<Vec<float>> load_bytes<Vec<float>>(const uint8_t* p) {
  return Int<Vec<float>>(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
