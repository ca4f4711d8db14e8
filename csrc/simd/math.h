// Elementary functions on the machine vector, written once over the words of vec.h.
//
// On Vec<float> each is within 2 ULP of the exact value for every float, subnormals included, and
// right at +-0, +-inf and NaN; docs/simd.md has the measured errors and costs. exp2_fast alone has
// a smaller domain. On Vec<double> they call libm lane by lane.
//
// Where the coefficients come from: least squares reweighted until the error is level (Lawson's
// algorithm) in 40 digits, on 500 Chebyshev points of the stated interval, with the weight that
// makes it the relative error of the function; then rounded to float. No coefficient was tuned
// further.
#pragma once

#include "simd/math_double.h"
#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace math_detail {

using F = Vec<float>;
using I = Int<F>;
using M = Mask<F>;

constexpr float kInf = __builtin_inff();
constexpr float kRound =
    0x1.8p23f;  // x + kRound - kRound rounds |x| < 2^22; the low bits of x + kRound hold it
constexpr float kLog2e = 0x1.715476p0f;
constexpr float kLn2Hi = 0x1.62e400p-1f;  // 16 bits: its product with an exponent is exact
constexpr float kLn2Lo = 0x1.7f7d1cp-20f;

SUFFUSE_INLINE I sign_bit() { return I(static_cast<int32_t>(0x80000000)); }

// c[0] + c[1] x + ... + c[n - 1] x^(n - 1)
template <int n>
SUFFUSE_INLINE F polynomial(F x, const float (&c)[n]) {
  F r(c[n - 1]);
  for (int i = n - 2; i >= 0; --i) r = muladd(r, x, F(c[i]));
  return r;
}

// e^x = (p + low) 2^n with p in [0.7, 1.42], low the rounding error of p; for |x| <= 200, or NaN.
struct Exponential {
  F p, low, n;
};
SUFFUSE_INLINE Exponential exponential(F x) {
  const F n = muladd(x, F(kLog2e), F(kRound)) - kRound;
  const F r = muladd(n, F(-kLn2Lo), muladd(n, F(-kLn2Hi), x));
  // (e^r - 1 - r) / r^2 on |r| <= 0.3467
  const F q = polynomial(r, {0.5f, 0.16666534543037415f, 0.041667237877845764f,
                             0.008367500267922878f, 0.0013863767962902784f});
  const F t = muladd(r * r, q, r), p = t + 1.f;
  return {p, t - (p - 1.f), n};
}

// Below -110 every result here is the same as at -110. The order of operands keeps NaN.
SUFFUSE_INLINE Exponential exponential_of_minus_abs(F x) {
  return exponential(max(F(-110.f), from_bits<F>(bits(x) | sign_bit())));
}

#if defined(__AVX512F__)
alignas(64) constexpr float kPowersOf2[32] = {
    // 2^(j / 32)
    1.0f,        1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f,
    1.1637249f,  1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f,
    1.35425556f, 1.38390994f, 1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f,
    1.5759809f,  1.61049032f, 1.64575553f, 1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
    1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f,
};
#endif

// (n + n_low) / (d + d_low) with about one rounding; the low parts are corrections.
SUFFUSE_INLINE F quotient(F n, F n_low, F d, F d_low) {
  const F inverse = 1.f / d, q = n * inverse;
  const F remainder = fnma(q, d, n) + fnma(q, d_low, n_low);
  return muladd(remainder, inverse, q);
}

// log(1 + y + low) for y in [0, 1] and |low| <= ulp(y); above 0.4142 around 1.5.
SUFFUSE_INLINE F log1p_unit(F y, F low) {
  const M big = y > F(0.4142f);
  const F u = select(big, (y - 0.5f) * (2.f / 3.f), y);
  // (log(1 + u) - u + u^2 / 2) / u^3 on [-1/6, 1/3 + 0.081]
  const F q = polynomial(
      u, {0.3333335518836975f, -0.25000330805778503f, 0.19995497167110443f, -0.16550296545028687f,
          0.13373947143554688f, -0.08927720040082932f, 0.033284980803728104f});
  F tail = (u * u) * muladd(q, u, F(-0.5f));
  tail = muladd(low, muladd(y, F(-0.4714f), F(0.9714f)), tail);  // low / (1 + y), 3 % is enough
  // log(1.5) in two floats, and what the first sum loses
  const F head = select(big, F(0x1.9f323ep-2f), zero<F>());
  const F head_low = select(big, F(0x1.97f30ap-27f), zero<F>());
  const F sum = head + u;
  const F lost = select(big, (head - sum) + u, zero<F>());
  return sum + (tail + (head_low + lost));
}

// The nearest multiple of pi/2: quadrant in the low two bits, x - quadrant pi/2 in rest; for 0 <= x
// <= kTrigLimit.
constexpr float kTrigLimit = 131072.f;
struct Reduced {
  I quadrant;
  F rest;
};
SUFFUSE_INLINE Reduced reduce_half_pi(F x) {
  const F t = muladd(x, F(0x1.45f306p-1f), F(kRound)), n = t - kRound;
  // pi/2 in three floats. The first step is exact, the others round where the rest is already small
  // enough.
  F r = fnma(n, F(0x1.921fb6p0f), x);
  r = fnma(n, F(-0x1.777a5cp-25f), r);
  r = fnma(n, F(-0x1.ee59dap-50f), r);
  return {bits(t), r};
}
// Of the rest r: (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 on |r| <= pi/4.
SUFFUSE_INLINE F sin_near_zero(F r, F square) {
  const F q =
      polynomial(square, {-0.16666655242443085f, 0.008332171477377415f, -0.00019516333122737706f});
  return muladd(square * r, q, r);
}
SUFFUSE_INLINE F cos_near_zero(F square) {
  const F q =
      polynomial(square, {0.04166664555668831f, -0.001388730714097619f, 2.4432039936073124e-05f});
  return muladd(square * square, q, muladd(square, F(-0.5f), F(1.f)));
}
// libm reduces arguments of any size; overwrites the lanes beyond kTrigLimit.
inline __attribute__((noinline, cold)) void trig_of_large(F x, F& sine, F& cosine) {
  float in[F::N], s[F::N], c[F::N];
  store(in, x);
  store(s, sine);
  store(c, cosine);
  for (int i = 0; i < F::N; ++i) {
    if (__builtin_fabsf(in[i]) <= kTrigLimit) continue;
    s[i] = static_cast<float>(__builtin_sin(in[i]));
    c[i] = static_cast<float>(__builtin_cos(in[i]));
  }
  sine = load<F>(s);
  cosine = load<F>(c);
}

}  // namespace math_detail

SUFFUSE_INLINE Vec<float> exp(Vec<float> x) {
  using namespace math_detail;
  const Exponential e = exponential(max(F(-110.f), min(F(100.f), x)));
  return scale2_near_one(e.p, e.n);
}

SUFFUSE_INLINE Vec<float> exp2(Vec<float> x) {
  using namespace math_detail;
  x = max(F(-160.f), min(F(130.f), x));
  const F n = (x + kRound) - kRound;
  // 2^r on |r| <= 1/2
  const F p =
      polynomial(x - n, {1.f, 0.6931471824645996f, 0.24022647738456726f, 0.055503323674201965f,
                         0.00961843691766262f, 0.0013398875016719103f, 0.00015353360504377633f});
  return scale2_near_one(p, n);
}

// 2^x for softmax and gates: x <= 127.5, -inf included. Within 2.1 ULP from 2^-126 up; smaller
// results may be flushed to 0 and lie below 2^-126; NaN stays NaN.
SUFFUSE_INLINE Vec<float> exp2_fast(Vec<float> x) {
  using namespace math_detail;
#if defined(__AVX512F__)
  // Tang's table method: 2^(j/32) by one permute of two registers, 2^r on |r| <= 1/64 of degree 2.
  // vscalefps takes the whole part of n, and NaN 2^-inf as 0, which is what -inf needs here.
  const F t = x + 0x1.8p18f, n = t - 0x1.8p18f, r = x - n;
  const F head = lookup32(kPowersOf2, bits(t));
  const F q = muladd(r, F(0.24022866785526276f), F(0.6931573152542114f));
  return scale2(muladd(head * r, q, head), n);
#else
  // At n = -127 the bits of 2^n are those of 0.
  x = max(F(-127.f), x);
  const F t = x + (kRound + 127.f), r = x - (t - (kRound + 127.f));
  // 2^r on |r| <= 1/2, weighted to level the error in ULP
  const F p = polynomial(r, {1.f, 0.693146824836731f, 0.24022236466407776f, 0.05550891533493996f,
                             0.009671762585639954f, 0.001322570606134832f});
  return p * from_bits<F>(shl<23>(bits(t)));
#endif
}

// 2^(a b) for decays, which a scan multiplies by the thousand: -1e20 <= a b <= 127.5, or -inf.
// Unlike exp2_fast it does not lean to one side near 0. Within 1.1 ULP from 2^-126 up, on AVX-512
// of the exact product; smaller results may be flushed to 0 and lie below 2^-126; NaN stays NaN.
SUFFUSE_INLINE Vec<float> exp2_decay(Vec<float> a, Vec<float> b) {
  using namespace math_detail;
#if defined(__AVX512F__)
  const F t = muladd(a, b, F(0x1.8p18f)), n = t - 0x1.8p18f, r = fms(a, b, n);
  const F head = lookup32(kPowersOf2, bits(t));
  // Taylor's series: the next term is below 6e-10 on |r| <= 1/64
  F q = muladd(r, F(0.05550410866482158f), F(0.2402265069591007f));
  q = muladd(r, q, F(0.6931471805599453f));
  return scale2(muladd(head * r, q, head), n);
#else
  const F x = max(F(-127.f), a * b);
  const F t = x + (kRound + 127.f), r = x - (t - (kRound + 127.f));
  const F p =
      polynomial(r, {1.f, 0.6931471824645996f, 0.24022647738456726f, 0.055503323674201965f,
                     0.00961843691766262f, 0.0013398875016719103f, 0.00015353360504377633f});
  return p * from_bits<F>(shl<23>(bits(t)));
#endif
}

SUFFUSE_INLINE Vec<float> log(Vec<float> x) {
  using namespace math_detail;
  const M small = x < F(0x1p-126f);
  const I word = bits(select(small, x * 0x1p23f, x));
  // x = m 2^k with m in [sqrt(1/2), sqrt(2)), u = m - 1
  const I k = sar<23>(word - I(0x3f3504f3));
  const F n = to_float(k) - select(small, F(23.f), zero<F>());
  const F u = from_bits<F>(word - shl<23>(k)) - 1.f;
  // (log(1 + u) - u + u^2 / 2) / u^3 on [-0.2929, 0.4142]
  const F q = polynomial(
      u, {0.3333333134651184f, -0.250008225440979f, 0.20001226663589478f, -0.16623352468013763f,
          0.1420174539089203f, -0.13160215318202972f, 0.12761685252189636f, -0.07634548842906952f});
  const F tail = muladd(n, F(kLn2Lo), (u * u) * muladd(q, u, F(-0.5f)));
  F r = muladd(n, F(kLn2Hi), u + tail);
  r = select(x < F(kInf), r, F(kInf));
  return select(x > zero<F>(), r, select(x == zero<F>(), F(-kInf), F(__builtin_nanf(""))));
}

// 1 / (1 + e^-x)
SUFFUSE_INLINE Vec<float> sigmoid(Vec<float> x) {
  using namespace math_detail;
  const M negative = x < zero<F>();
  const Exponential e = exponential_of_minus_abs(x);
  const F small = scale2_near_one(e.p, e.n), d = 1.f + small;
  const F d_low = (small - (d - 1.f)) + scale2_near_one(e.low, e.n);
  const F r = quotient(select(negative, e.p, F(1.f)), select(negative, e.low, zero<F>()), d, d_low);
  return scale2_near_one(r, select(negative, e.n, zero<F>()));
}

// 1 / (1 + e^-x) for gates and activations, at less than half of sigmoid's cost: within 4 ULP for x
// >= -87, where it stays for what is smaller. NaN stays NaN.
SUFFUSE_INLINE Vec<float> sigmoid_fast(Vec<float> x) {
  using namespace math_detail;
  x = min(F(87.f), max(F(-87.f), x));
#if defined(__AVX512F__)
  // e^-x as exp2_fast has it, then one step of Newton's method
  constexpr float kLog2eLow = 1.925963e-8f;
  const F t = muladd(x, F(-kLog2e), F(0x1.8p18f)), n = t - 0x1.8p18f;
  const F r = muladd(x, F(-kLog2eLow), fms(x, F(-kLog2e), n));
  const F head = lookup32(kPowersOf2, bits(t));
  const F q = muladd(r, F(0.24022866785526276f), F(0.6931573152542114f));
  const F d = 1.f + scale2(muladd(head * r, q, head), n), estimate = reciprocal_estimate(d);
  return muladd(fnma(d, estimate, F(1.f)), estimate, estimate);
#else
  const Exponential e = exponential(-x);
  return 1.f / (1.f + scale2_near_one(e.p, e.n));
#endif
}

// x sigmoid(x) in the same way, with -87 for what is smaller.
SUFFUSE_INLINE Vec<float> silu_fast(Vec<float> x) {
  return max(Vec<float>(-87.f), x) * sigmoid_fast(x);
}

// log(1 + e^x) at half of softplus's cost: within 3.3 ULP for x >= -87, where it stays for what is
// smaller. NaN stays NaN.
SUFFUSE_INLINE Vec<float> softplus_fast(Vec<float> x) {
  using namespace math_detail;
  const F low = max(F(-87.f), from_bits<F>(bits(x) | sign_bit()));
#if defined(__AVX512F__)
  // e^low as exp2_fast has it
  constexpr float kLog2eLow = 1.925963e-8f;
  const F t = muladd(low, F(kLog2e), F(0x1.8p18f)), n = t - 0x1.8p18f;
  const F r = muladd(low, F(kLog2eLow), fms(low, F(kLog2e), n));
  const F head = lookup32(kPowersOf2, bits(t));
  const F q = muladd(r, F(0.24022866785526276f), F(0.6931573152542114f));
  const F y = scale2(muladd(head * r, q, head), n);
#else
  const Exponential e = exponential(low);
  const F y = scale2_near_one(e.p, e.n);
#endif
  // log(1 + y) / y on [0, 1]
  const F p =
      polynomial(y, {1.f, -0.4999990165233612f, 0.3332996368408203f, -0.24954134225845337f,
                     0.1967593878507614f, -0.15305592119693756f, 0.10603653639554977f,
                     -0.056959524750709534f, 0.019851457327604294f, -0.003244024235755205f});
  return muladd(y, p, max(zero<F>(), x));
}

// x sigmoid(x)
SUFFUSE_INLINE Vec<float> silu(Vec<float> x) {
  using namespace math_detail;
  const M negative = x < zero<F>();
  const Exponential e = exponential_of_minus_abs(x);
  const F small = scale2_near_one(e.p, e.n), d = 1.f + small;
  const F d_low = (small - (d - 1.f)) + scale2_near_one(e.low, e.n);
  const F bounded = max(F(-110.f), x);
  const F product = bounded * e.p;
  const F n = select(negative, product, x);
  const F n_low = select(negative, muladd(bounded, e.low, fms(bounded, e.p, product)), zero<F>());
  // The power of two comes last so that subnormal results are rounded once.
  const F r = scale2_near_one(quotient(n, n_low, d, d_low), select(negative, e.n, zero<F>()));
  return select(x < F(50.f), copysign(r, x), x);
}

// log(1 + e^x)
SUFFUSE_INLINE Vec<float> softplus(Vec<float> x) {
  using namespace math_detail;
  const Exponential e = exponential_of_minus_abs(x);
  return max(zero<F>(), x) + log1p_unit(scale2_near_one(e.p, e.n), scale2_near_one(e.low, e.n));
}

SUFFUSE_INLINE Vec<float> tanh(Vec<float> x) {
  using namespace math_detail;
  const F m = abs(x), square = m * m;
  // (tanh(m) / m - 1) / m^2 on m <= 0.625
  const F q = polynomial(square, {-0.3333328366279602f, 0.13331490755081177f, -0.05374349653720856f,
                                  0.020650582388043404f, -0.005717040505260229f});
  const Exponential e = exponential(2.f * min(F(10.f), m));
  const F far = 1.f - 2.f / (scale2_near_one(e.p, e.n) + 1.f);
  return copysign(select(m < F(0.625f), muladd(square * m, q, m), far), x);
}

// tanh as a quotient of two polynomials, at half of tanh's cost: within 6 ULP, and by as much may
// the largest results exceed 1. NaN stays NaN.
SUFFUSE_INLINE Vec<float> tanh_fast(Vec<float> x) {
  using namespace math_detail;
  x = min(F(9.02f), max(F(-9.02f), x));
  const F square = x * x;
  const F n = polynomial(square, {1.f, 0.1337967813014984f, 0.003493980271741748f,
                                  2.0582363504217938e-05f, 1.33171633720508e-08f});
  const F d = polynomial(square, {1.f, 0.4671299159526825f, 0.025870881974697113f,
                                  0.0003282993857283145f, 7.761311735521303e-07f});
#if defined(__AVX512F__)
  const F estimate = reciprocal_estimate(d);
  return (x * n) * muladd(fnma(d, estimate, F(1.f)), estimate, estimate);
#else
  return x * n / d;
#endif
}

SUFFUSE_INLINE Vec<float> erf(Vec<float> x) {
  using namespace math_detail;
  const F m = abs(x), square = m * m;
  // erf(m) / m - 1 on m <= 0.93
  const F q = polynomial(square, {0.12837916612625122f, -0.37612634897232056f, 0.11283694207668304f,
                                  -0.02685927040874958f, 0.005200633779168129f,
                                  -0.0008137432741932571f, 8.345206879312173e-05f});
  // log(1 - erf(m)) on [0.93, 4]; beyond, erf rounds to 1
  const F far =
      polynomial(min(F(4.f), m), {-0.0002113081282004714f, -1.1276112794876099f,
                                  -0.637290358543396f, -0.10383693873882294f, 0.022181404754519463f,
                                  -0.003031824715435505f, 0.0001947782002389431f});
  const Exponential e = exponential(far);
  return copysign(select(m < F(0.93f), muladd(m, q, m), 1.f - scale2_near_one(e.p, e.n)), x);
}

SUFFUSE_INLINE void sincos(Vec<float> x, Vec<float>& sine, Vec<float>& cosine) {
  using namespace math_detail;
  const F m = abs(x);
  const Reduced a = reduce_half_pi(m);
  const F square = a.rest * a.rest;
  const F s = sin_near_zero(a.rest, square), c = cos_near_zero(square);
  const M odd = nonzero(a.quadrant & I(1));
  const I sine_sign = (shl<30>(a.quadrant) ^ bits(x)) & sign_bit();
  const I cosine_sign = shl<30>(a.quadrant + I(1)) & sign_bit();
  sine = from_bits<F>(bits(select(odd, c, s)) ^ sine_sign);
  cosine = from_bits<F>(bits(select(odd, s, c)) ^ cosine_sign);
  if (any(m > F(kTrigLimit))) trig_of_large(x, sine, cosine);
}
SUFFUSE_INLINE Vec<float> sin(Vec<float> x) {
  Vec<float> s, c;
  sincos(x, s, c);
  return s;
}
SUFFUSE_INLINE Vec<float> cos(Vec<float> x) {
  Vec<float> s, c;
  sincos(x, s, c);
  return c;
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
