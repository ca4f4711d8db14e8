// Square blocks of memory, transposed as they are loaded.
//
//   load_transposed(r, p, ld)   r[i] lane j = p[j ld + i], V::N rows of as many numbers
#pragma once

#include <cstdint>

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <class V, class N>
SUFFUSE_INLINE void load_transposed(V (&r)[V::N], const N* p, int64_t ld) {
#pragma GCC unroll 16
  for (int i = 0; i < V::N; ++i) r[i] = load<V>(p + i * ld);
  transpose(r);
}

#if defined(__AVX512F__)
// Quarters of four rows meet in one register as they are loaded, which any port can do; only what
// is left, 4 x 4 in each quarter, needs the one that shuffles.
namespace transpose_detail {
SUFFUSE_INLINE void load_quarters(Vec<float> (&r)[16], const char* p, int64_t ld) {
  const auto quarter = [](const char* at) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(at));
  };
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m512 x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const char* const from = p + i * ld + 16 * c;
      x[i] = _mm512_castps128_ps512(quarter(from));
      x[i] = _mm512_mask_broadcast_f32x4(x[i], 0x00f0, quarter(from + 4 * ld));
      x[i] = _mm512_mask_broadcast_f32x4(x[i], 0x0f00, quarter(from + 8 * ld));
      x[i] = _mm512_mask_broadcast_f32x4(x[i], 0xf000, quarter(from + 12 * ld));
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
    const __m512d e = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
    r[4 * c] = Vec<float>(_mm512_castpd_ps(_mm512_unpacklo_pd(a, d)));
    r[4 * c + 1] = Vec<float>(_mm512_castpd_ps(_mm512_unpackhi_pd(a, d)));
    r[4 * c + 2] = Vec<float>(_mm512_castpd_ps(_mm512_unpacklo_pd(b, e)));
    r[4 * c + 3] = Vec<float>(_mm512_castpd_ps(_mm512_unpackhi_pd(b, e)));
  }
}
}  // namespace transpose_detail
SUFFUSE_INLINE void load_transposed(Vec<float> (&r)[16], const float* p, int64_t ld) {
  transpose_detail::load_quarters(r, reinterpret_cast<const char*>(p), 4 * ld);
}
// The same for rows of 16 pairs of bfloat16, as bits.
SUFFUSE_INLINE void load_transposed_pairs(Vec<float> (&r)[16], const bfloat16* p, int64_t ld) {
  static_assert(sizeof(bfloat16) == 2, "two of them are a word");
  const char* const rows = reinterpret_cast<const char*>(p);
  transpose_detail::load_quarters(r, rows, 2 * ld);
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
