// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011) and normal numbers from them
// (Box and Muller 1958).
//
// Element i of a tensor, in contiguous order, is made from block i / 4 alone: counter words (low i
// / 4, high i / 4, low offset, high offset), key (low seed, high seed). Of the four words that come
// out, elements 4b and 4b + 1 are r cos and r sin of (c0, c1), elements 4b + 2 and 4b + 3 of (c2,
// c3). Only fused multiply-adds, products and square roots occur after that, so that every ISA and
// the GPU give the same bits.
#pragma once

#include <cstdint>

#include "math/scalar.h"

namespace suffuse {

struct PhiloxConstants {
  static constexpr int rounds = 10;
  static constexpr uint32_t multiply0 = 0xD2511F53u, multiply1 = 0xCD9E8D57u;
  static constexpr uint32_t weyl0 = 0x9E3779B9u, weyl1 = 0xBB67AE85u;
};

struct PhiloxBlock {
  uint32_t c[4];
};

SUFFUSE_HD SUFFUSE_INLINE PhiloxBlock philox(PhiloxBlock block, uint32_t key0, uint32_t key1) {
  using C = PhiloxConstants;
  for (int i = 0; i < C::rounds; i++) {
    const uint64_t p0 = static_cast<uint64_t>(C::multiply0) * block.c[0];
    const uint64_t p1 = static_cast<uint64_t>(C::multiply1) * block.c[2];
    block = {{static_cast<uint32_t>(p1 >> 32) ^ block.c[1] ^ key0, static_cast<uint32_t>(p1),
              static_cast<uint32_t>(p0 >> 32) ^ block.c[3] ^ key1, static_cast<uint32_t>(p0)}};
    key0 += C::weyl0;
    key1 += C::weyl1;
  }
  return block;
}

SUFFUSE_HD SUFFUSE_INLINE PhiloxBlock philox(uint64_t counter, uint64_t offset, uint64_t seed) {
  const PhiloxBlock block = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                              static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32)}};
  return philox(block, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// -2 log u for a positive normal u: u = 2^e (1 + f) with |f| small, log(1 + f) = f + f^2 (f P(f) -
// 1/2). P is the best polynomial for the relative error, which is below 2e-7, rounding included.
template <class F, class I>
SUFFUSE_HD SUFFUSE_INLINE F minus_two_log(F u) {
  const I sqrt_half(0x3f3504f3);
  // 1 + f in [sqrt(1/2), sqrt(2)), so that e = 0 around 1 and nothing cancels there.
  const I shifted = bits(u) - sqrt_half;
  const F e = to_float(sar<23>(shifted));
  const F f = Number<F>::from_bits((shifted & I(0x7fffff)) + sqrt_half) - F(1.f);
  F p = fma(F(0.08700448274612427f), f, F(-0.14267490804195404f));
  p = fma(p, f, F(0.1491476446390152f));
  p = fma(p, f, F(-0.1657758355140686f));
  p = fma(p, f, F(0.19963063299655914f));
  p = fma(p, f, F(-0.2500133812427521f));
  p = fma(p, f, F(0.3333390951156616f));
  p = fma(p, f, F(-0.5f));
  const F log_mantissa = fma(f * f, p, f);
  return F(-2.f) * fma(e, F(0.693147180559945f), log_mantissa);
}

// Two independent standard normal numbers from two random words. F is float or a vector of floats,
// I its integers.
template <class F, class I>
SUFFUSE_HD SUFFUSE_INLINE void box_muller(I radius, I angle, F& cosine, F& sine) {
  // u = (radius + 1/2) / 2^32 with one rounding: in (0, 1], and its small values reach to 6.7
  // standard deviations.
  const F low = fma(to_float(radius & I(0xffff)), F(0x1p-32f), F(0x1p-33f));
  const F u = fma(to_float(shr<16>(radius)), F(0x1p-16f), low);
  const F r = sqrt(minus_two_log<F, I>(u));
  // angle = quarter turns + t, t in [-1/8, 1/8) of a turn, where short polynomials do.
  const I quarter = sar<30>(angle + I(1 << 29));
  const F t = to_float(angle - shl<30>(quarter)) * F(0x1p-32f), t2 = t * t;
  F s = fma(F(-75.39356231689453f), t2, F(81.59235382080078f));
  s = fma(s, t2, F(-41.3416633605957f));
  s = fma(s, t2, F(6.2831854820251465f)) * t;
  F c = fma(F(-83.66592407226562f), t2, F(64.92322540283203f));
  c = fma(c, t2, F(-19.739168167114258f));
  c = fma(c, t2, F(1.f));
  const auto odd = nonzero(quarter & I(1));
  const I sign(static_cast<int32_t>(0x80000000u));
  cosine = r * Number<F>::from_bits(bits(select(odd, s, c)) ^ (shl<30>(quarter + I(1)) & sign));
  sine = r * Number<F>::from_bits(bits(select(odd, c, s)) ^ (shl<30>(quarter) & sign));
}

}  // namespace suffuse
