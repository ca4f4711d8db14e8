// The step of a linear recurrence h_t = a_t h_{t-1} + x_t as a value: steps compose associatively,
// which is what scans need. F is float, double or a vector of them.
#pragma once

#include "math/scalar.h"

namespace suffuse {

// h -> a h + x.
template <class F>
struct Affine {
  F a, x;
};

// `first`, then `second`.
template <class F>
struct ComposeAffine {
  SUFFUSE_HD static Affine<F> identity() { return {F(1), F(0)}; }
  SUFFUSE_HD SUFFUSE_INLINE Affine<F> operator()(Affine<F> first, Affine<F> second) const {
    return {first.a * second.a, fma(second.a, first.x, second.x)};
  }
};

}  // namespace suffuse
