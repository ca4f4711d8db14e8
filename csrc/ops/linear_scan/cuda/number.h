// The numbers that linear_scan computes with: float, double, and complex ones of them.
#pragma once

#include <type_traits>

#include "math/scalar.h"

namespace suffuse {

template <class F>
struct Complex {
  F re, im;
};

// What elements of type S are computed in.
template <class S>
using LinearScanNumber = std::conditional_t<sizeof(S) == 2, float, S>;

template <class T>
SUFFUSE_HD SUFFUSE_INLINE T one() {
  if constexpr (std::is_arithmetic_v<T>) {
    return T(1);
  } else {
    return {1, 0};
  }
}

template <class F>
SUFFUSE_HD SUFFUSE_INLINE F add(F a, F b) {
  return a + b;
}
template <class F>
SUFFUSE_HD SUFFUSE_INLINE Complex<F> add(Complex<F> a, Complex<F> b) {
  return {a.re + b.re, a.im + b.im};
}

template <class F>
SUFFUSE_HD SUFFUSE_INLINE F multiply(F a, F b) {
  return a * b;
}
template <class F>
SUFFUSE_HD SUFFUSE_INLINE Complex<F> multiply(Complex<F> a, Complex<F> b) {
  return {fma(a.re, b.re, -(a.im * b.im)), fma(a.re, b.im, a.im * b.re)};
}

// a h + x
template <class F>
SUFFUSE_HD SUFFUSE_INLINE F advance(F a, F h, F x) {
  return fma(a, h, x);
}
template <class F>
SUFFUSE_HD SUFFUSE_INLINE Complex<F> advance(Complex<F> a, Complex<F> h, Complex<F> x) {
  return {fma(-a.im, h.im, fma(a.re, h.re, x.re)), fma(a.im, h.re, fma(a.re, h.im, x.im))};
}

}  // namespace suffuse
