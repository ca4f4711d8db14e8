// Complex numbers and powers e^(x l) of the CUDA kernels of s4_kernel.
#pragma once

#include <cstdint>

#include "cuda/vocab.cuh"
#include "math/scalar.h"

namespace suffuse {

template <class T>
struct alignas(2 * sizeof(T)) S4Complex {
  T re, im;
};

template <class T>
SUFFUSE_DEVICE S4Complex<T> operator*(const S4Complex<T>& a, const S4Complex<T>& b) {
  return {fma(-a.im, b.im, a.re * b.re), fma(a.im, b.re, a.re * b.im)};
}

// sum + a b
template <class T>
SUFFUSE_DEVICE S4Complex<T> add_product(const S4Complex<T>& sum, const S4Complex<T>& a,
                                        const S4Complex<T>& b) {
  return {fma(-a.im, b.im, fma(a.re, b.re, sum.re)), fma(a.im, b.re, fma(a.re, b.im, sum.im))};
}

template <class T>
SUFFUSE_DEVICE S4Complex<T> add(const S4Complex<T>& a, const S4Complex<T>& b) {
  return {a.re + b.re, a.im + b.im};
}

// Of r, |r| <= pi/4, with its square: (sin(r) / r - 1) / r^2 and (cos(r) - 1) / r^2. Floats by the
// coefficients of simd/math.h, doubles by Taylor's series, whose next terms are below 1e-17.
SUFFUSE_DEVICE float sine_rest(float s) {
  return fma(fma(-0.00019516333122737706f, s, 0.008332171477377415f), s, -0.16666655242443085f);
}
SUFFUSE_DEVICE float cosine_rest(float s) {
  const float q =
      fma(fma(2.4432039936073124e-05f, s, -0.001388730714097619f), s, 0.04166664555668831f);
  return fma(q, s, -0.5f);
}
SUFFUSE_DEVICE double sine_rest(double s) {
  double q = 0;
#pragma unroll
  for (int n = 17; n >= 3; n -= 2) q = (1 - q * s) / (n * (n - 1));
  return -q;
}
SUFFUSE_DEVICE double cosine_rest(double s) {
  double q = 0;
#pragma unroll
  for (int n = 18; n >= 2; n -= 2) q = (1 - q * s) / (n * (n - 1));
  return -q;
}

// cos(phase + low) + i sin(phase + low). The phase of a float times an integer is exact in double;
// beyond 2^22 turns of a double it is not known to within one.
template <class T>
SUFFUSE_DEVICE S4Complex<T> on_circle(double phase, double low) {
  const double n = rint(phase * 0x1.45f306dc9c883p-1);
  double rest = ::fma(-n, 0x1.921fb54442d18p0, phase);
  rest = ::fma(-n, 0x1.1a62633145c07p-54, rest) + low;
  const T r = static_cast<T>(rest), square = r * r;
  const T s = fma(r * square, sine_rest(square), r), c = fma(square, cosine_rest(square), T(1));
  const double quarter = n - 4 * rint(n * 0.25);  // -2 to 2
  const bool odd = quarter == 1 || quarter == -1;
  const T re = odd ? s : c, im = odd ? c : s;
  const bool turned = quarter == 2 || quarter == -2;
  return {turned || quarter == 1 ? -re : re, turned || quarter == -1 ? -im : im};
}

// e^(x l), with what rounding takes from x l put back.
SUFFUSE_DEVICE S4Complex<float> power(const S4Complex<float>& x, int64_t l) {
  const float step = static_cast<float>(l), log_size = x.re * step;
  const float low = abs(log_size) <= 1e4f ? fma(x.re, step, -log_size) : 0.f;
  const float size = expf(log_size), scale = fma(size, low, size);
  const auto turn = on_circle<float>(static_cast<double>(x.im) * static_cast<double>(l), 0);
  return {scale * turn.re, scale * turn.im};
}
SUFFUSE_DEVICE S4Complex<double> power(const S4Complex<double>& x, int64_t l) {
  const double step = static_cast<double>(l), log_size = x.re * step, phase = x.im * step;
  const double low = abs(log_size) <= 1e4 ? ::fma(x.re, step, -log_size) : 0;
  const double size = exp(log_size), scale = ::fma(size, low, size);
  const double phase_low = abs(phase) <= 0x1p22 ? ::fma(x.im, step, -phase) : 0;
  const auto turn = on_circle<double>(phase, phase_low);
  return {scale * turn.re, scale * turn.im};
}

}  // namespace suffuse
