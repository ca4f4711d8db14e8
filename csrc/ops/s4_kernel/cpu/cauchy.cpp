// The Cauchy product: outputs on the lanes, terms one after the other.
#include "ops/s4_kernel/cpu/kernel.h"
#include "ops/s4_kernel/cpu/powers-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace s4 {

constexpr int kCauchyTerms = 16;  // are added up before their sum is added to that of the others

SUFFUSE_INLINE Vec<double> reciprocal(Vec<double> x) { return Vec<double>(1) / x; }
SUFFUSE_INLINE Vec<float> reciprocal(Vec<float> x) {
#if defined(__AVX512F__)
  const Vec<float> estimate = reciprocal_estimate(x);
  return muladd(muladd(-x, estimate, Vec<float>(1)), estimate, estimate);
#else
  return Vec<float>(1) / x;
#endif
}

template <class V>
SUFFUSE_INLINE Complex<V> inverse(const Complex<V>& d) {
  const V scale = reciprocal(muladd(d.re, d.re, d.im * d.im));
  return {d.re * scale, -d.im * scale};
}

template <class V>
SUFFUSE_INLINE void add_product(Complex<V>& sum, const Complex<V>& a, const Complex<V>& b) {
  sum.re = muladd(-a.im, b.im, muladd(a.re, b.re, sum.re));
  sum.im = muladd(a.im, b.re, muladd(a.re, b.im, sum.im));
}

// A block of terms as the sums below read them.
template <class N>
struct CauchyTerms {
  int count;
  N v[kCauchyTerms][2], w[kCauchyTerms][2];
  N cross[kCauchyTerms];  // 2 Im(v) Im(w)
};

// v / (z - w) + its partner of the conjugates v*, w*, by one division: with a = Re(z - w)
//   (2 Re(v) (a + i Im(z)) - 2 Im(v) Im(w)) / ((z - w) (z - w*)),
// whose differences are those of the parts, so that nothing cancels near a pole.
template <class V, class N>
SUFFUSE_INLINE void add_pairs(Complex<V>& sum, const Complex<V>& z, const CauchyTerms<N>& terms) {
  const V twice = z.im + z.im;
  for (int n = 0; n < terms.count; n++) {
    const V v(2 * terms.v[n][0]), a = z.re - V(terms.w[n][0]), w_im(terms.w[n][1]);
    const V re = muladd(a, a, (w_im - z.im) * (w_im + z.im)), im = a * twice;
    const V scale = reciprocal(muladd(re, re, im * im));
    const V top = muladd(v, a, V(-terms.cross[n])), top_im = v * z.im;
    sum.re = muladd(muladd(top, re, top_im * im), scale, sum.re);
    sum.im = muladd(muladd(top_im, re, -top * im), scale, sum.im);
  }
}

// sums[i] += v / (z - w)^(power + i)
template <class V, int kSums, class N>
SUFFUSE_INLINE void add_terms(Complex<V> (&sums)[kSums], const Complex<V>& z,
                              const CauchyTerms<N>& terms, int power, N sign) {
  for (int n = 0; n < terms.count; n++) {
    const Complex<V> v{V(terms.v[n][0]), V(sign * terms.v[n][1])};
    const Complex<V> d{z.re - V(terms.w[n][0]), z.im - V(sign * terms.w[n][1])};
    const Complex<V> factor = inverse(d);
    Complex<V> product = factor;
    for (int i = 1; i < power; i++) product = product * factor;
    add_product(sums[0], v, product);
    if constexpr (kSums == 2) add_product(sums[1], v, product * factor);
  }
}

// A sum of many with what its rounding has lost (Kahan 1965).
template <class N>
struct LongSum {
  alignas(64) N sum[kS4CauchyOutputs], lost[kS4CauchyOutputs];
};

template <class V, class N>
SUFFUSE_INLINE void add_to(LongSum<N>& total, int i, V value) {
  const V before = load<V>(total.sum + i), all = value - load<V>(total.lost + i);
  const V after = before + all;
  store(total.lost + i, (after - before) - all);
  store(total.sum + i, after);
}

// The points and sums of one unit: real parts, imaginary parts.
template <class N, int kSums>
struct CauchyOutputs {
  int count;
  alignas(64) N z[2][kS4CauchyOutputs];
  LongSum<N> totals[kSums][2];
};

template <class V, int kSums, class N>
void sum_terms(const S4CauchyParams& p, const CauchyTerms<N>& terms, CauchyOutputs<N, kSums>& to) {
  for (int i = 0; i < to.count; i += V::N) {
    const Complex<V> z{load<V>(to.z[0] + i), load<V>(to.z[1] + i)};
    Complex<V> sums[kSums];
    for (Complex<V>& sum : sums) sum = {zero<V>(), zero<V>()};
    if (kSums == 1 && p.conj && p.power == 1) {
      add_pairs(sums[0], z, terms);
    } else {
      add_terms<V, kSums>(sums, z, terms, p.power, N(1));
      if (p.conj) add_terms<V, kSums>(sums, z, terms, p.power, N(-1));
    }
    for (int s = 0; s < kSums; s++) {
      add_to(to.totals[s][0], i, sums[s].re);
      add_to(to.totals[s][1], i, sums[s].im);
    }
  }
}

template <class N>
CauchyTerms<N> take_terms(const N* v, const N* w, int64_t left) {
  CauchyTerms<N> terms;
  terms.count = static_cast<int>(left < kCauchyTerms ? left : kCauchyTerms);
  for (int i = 0; i < terms.count; i++) {
    for (int part = 0; part < 2; part++) {
      terms.v[i][part] = v[2 * i + part];
      terms.w[i][part] = w[2 * i + part];
    }
    terms.cross[i] = 2 * terms.v[i][1] * terms.w[i][1];
  }
  return terms;
}

template <class V, int kSums, class N>
void cauchy_unit(const S4CauchyParams& p, int64_t unit) {
  const int64_t blocks = (p.outputs + kS4CauchyOutputs - 1) / kS4CauchyOutputs, row = unit / blocks;
  const int64_t begin = unit % blocks * kS4CauchyOutputs, left = p.outputs - begin;
  const N* z = static_cast<const N*>(p.z) + 2 * (row * p.z_row + begin);
  const N* w = static_cast<const N*>(p.w) + 2 * row * p.w_row;
  const N* v = static_cast<const N*>(p.v) + 2 * row * p.terms;
  CauchyOutputs<N, kSums> sums = {};
  sums.count = static_cast<int>(left < kS4CauchyOutputs ? left : kS4CauchyOutputs);
  for (int i = 0; i < 2 * sums.count; i++) sums.z[i % 2][i / 2] = z[i];
  for (int64_t n = 0; n < p.terms; n += kCauchyTerms) {
    sum_terms<V>(p, take_terms(v + 2 * n, w + 2 * n, p.terms - n), sums);
  }
  void* outputs[] = {p.out, p.next};
  for (int s = 0; s < kSums; s++) {
    N* to = static_cast<N*>(outputs[s]) + 2 * (row * p.outputs + begin);
    for (int i = 0; i < 2 * sums.count; i++) to[i] = sums.totals[s][i % 2].sum[i / 2];
  }
}

}  // namespace s4

void s4_cauchy_range(const S4CauchyParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const auto run = [&](auto tag) {
    using N = typename decltype(tag)::type;
    for (int64_t unit = begin; unit < end; unit++) {
      p.next ? s4::cauchy_unit<Vec<N>, 2, N>(p, unit) : s4::cauchy_unit<Vec<N>, 1, N>(p, unit);
    }
  };
  p.dtype == DType::f64 ? run(TypeTag<double>()) : run(TypeTag<float>());
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
