// Words for results that are rounded to bfloat16 or half precision.
//
// clang-format off
// silu_near(x)          x / (1 + e^-x) within 2^-12.9 of it, relative, for x >= -87, where it stays
//                       for what is smaller; NaN stays NaN
// store_two(p, a, b)    the vector a and behind it b; of results of arithmetic under
//                       FlushSubnormals, which are not subnormal: the bits that store gives
// clang-format on
#pragma once

#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {

SUFFUSE_INLINE Vec<float> silu_near(Vec<float> x) {
  using namespace math_detail;
  const F low = max(F(-87.f), x), bounded = min(F(87.f), low);
#if defined(__AVX512F__)
  // e^-x = 2^n e^-s, n in steps of 1/32
  const F t = muladd(bounded, F(-kLog2e), F(0x1.8p18f)), n = t - 0x1.8p18f;
  const F s = muladd(n, F(0.693147182f), bounded);
  const F head = lookup32(kPowersOf2, bits(t));
  return low * reciprocal_estimate(1.f + scale2(fnma(head, s, head), n));
#else
  const F t = muladd(bounded, F(-kLog2e), F(0x1.8p23f));
  const F r = muladd(bounded, F(-kLog2e), -(t - 0x1.8p23f));
  const F p = polynomial(r, {0.99992807f, 0.69326099f, 0.24261112f, 0.05517167f});
  return low / (1.f + from_bits<F>(bits(p) + shl<23>(bits(t))));
#endif
}

template <class S, class V>
SUFFUSE_INLINE void store_two(S* p, V a, V b) {
  store(p, a);
  store(p + V::N, b);
}
#if defined(__AVX512BF16__)
SUFFUSE_INLINE void store_two(bfloat16* p, Vec<float> a, Vec<float> b) {
  _mm512_storeu_si512(p, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v)));
}
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
