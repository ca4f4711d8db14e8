// Powers e^(x l) on the lanes, and tables of them.
#pragma once

#include "ops/s4_kernel/params.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace s4 {

template <class V>
struct Complex {
  V re, im;
};

template <class V>
SUFFUSE_INLINE Complex<V> operator*(const Complex<V>& a, const Complex<V>& b) {
  return {muladd(-a.im, b.im, a.re * b.re), muladd(a.im, b.re, a.re * b.im)};
}

// e^(x l). What rounding takes from x l is put back: for large l it is far more than the last place
// of the result.
template <class V>
SUFFUSE_INLINE Complex<V> power(const Complex<V>& x, V l) {
  const V re = x.re * l, im = x.im * l;
  // Beyond these the result is 0 or infinite, or the phase is not known to within a turn.
  const V re_low = select(abs(re) <= V(1e4f), fms(x.re, l, re), zero<V>());
  const V im_low = select(abs(im) <= V(0x1p22f), fms(x.im, l, im), zero<V>());
  V sine, cosine;
  sincos(im, sine, cosine);
  const V size = exp(re), scale = muladd(size, re_low, size);
  // cos and sin of im_low, which is small
  const V square = im_low * im_low, turn = muladd(V(-0.5f), square, V(1));
  const V tilt = muladd(im_low * square, V(-1.f / 6), im_low);
  return {scale * muladd(-sine, tilt, cosine * turn), scale * muladd(cosine, tilt, sine * turn)};
}

// `count` complex numbers, one a lane.
template <class V, class N>
SUFFUSE_INLINE Complex<V> gather(const N* from, int count) {
  alignas(64) N re[V::N] = {}, im[V::N] = {};
  for (int i = 0; i < count; i++) {
    re[i] = from[2 * i];
    im[i] = from[2 * i + 1];
  }
  return {load<V>(re), load<V>(im)};
}

// table[i][part][term] = factor e^(x (start + step i)) for i < count and the lanes' terms: products
// of every eighth one with the first eight.
template <class V, class N, int kTerms>
SUFFUSE_INLINE void fill_powers(N (*table)[2][kTerms], int term, const Complex<V>& factor,
                                const Complex<V>& x, int64_t start, int step, int count) {
  constexpr int kFine = 8;
  Complex<V> fine[kFine];
  for (int i = 0; i < kFine; i++) fine[i] = power(x, V(static_cast<N>(step * i)));
  for (int first = 0; first < count; first += kFine) {
    const Complex<V> coarse = factor * power(x, V(static_cast<N>(start + step * first)));
    for (int i = 0; i < kFine && first + i < count; i++) {
      const Complex<V> y = coarse * fine[i];
      store(&table[first + i][0][term], y.re);
      store(&table[first + i][1][term], y.im);
    }
  }
}

}  // namespace s4
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
