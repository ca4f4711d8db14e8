// The functions of math.h on Vec<double>: libm, lane by lane. Kernels use double for checking, not
// for speed.
#pragma once

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <class Function>
SUFFUSE_INLINE Vec<double> map_lanes(Vec<double> x, Function function) {
  for (int i = 0; i < Vec<double>::N; ++i) x.v[i] = function(x.v[i]);
  return x;
}

SUFFUSE_INLINE Vec<double> exp(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_exp(t); });
}
SUFFUSE_INLINE Vec<double> exp2(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_exp2(t); });
}
SUFFUSE_INLINE Vec<double> exp2_fast(Vec<double> x) { return exp2(x); }
SUFFUSE_INLINE Vec<double> exp2_decay(Vec<double> a, Vec<double> b) { return exp2(a * b); }
SUFFUSE_INLINE Vec<double> log(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_log(t); });
}
SUFFUSE_INLINE Vec<double> sigmoid(Vec<double> x) {
  return map_lanes(x, [](double t) {
    const double e = __builtin_exp(-__builtin_fabs(t));
    return (t < 0 ? e : 1) / (1 + e);
  });
}
SUFFUSE_INLINE Vec<double> silu(Vec<double> x) {
  return map_lanes(x, [](double t) {
    if (t < -800) return -0.0;  // -inf too; the product underflows well before
    const double e = __builtin_exp(-__builtin_fabs(t));
    return (t < 0 ? t * e : t) / (1 + e);
  });
}
SUFFUSE_INLINE Vec<double> sigmoid_fast(Vec<double> x) { return sigmoid(x); }
SUFFUSE_INLINE Vec<double> silu_fast(Vec<double> x) { return silu(x); }
SUFFUSE_INLINE Vec<double> softplus(Vec<double> x) {
  return map_lanes(x, [](double t) {
    const double rest = __builtin_log1p(__builtin_exp(-__builtin_fabs(t)));
    return t > 0 ? t + rest : t <= 0 ? rest : t;
  });
}
SUFFUSE_INLINE Vec<double> softplus_fast(Vec<double> x) { return softplus(x); }
SUFFUSE_INLINE Vec<double> tanh(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_tanh(t); });
}
SUFFUSE_INLINE Vec<double> tanh_fast(Vec<double> x) { return tanh(x); }
SUFFUSE_INLINE Vec<double> erf(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_erf(t); });
}
SUFFUSE_INLINE Vec<double> sin(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_sin(t); });
}
SUFFUSE_INLINE Vec<double> cos(Vec<double> x) {
  return map_lanes(x, [](double t) { return __builtin_cos(t); });
}
SUFFUSE_INLINE void sincos(Vec<double> x, Vec<double>& sine, Vec<double>& cosine) {
  sine = sin(x);
  cosine = cos(x);
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
