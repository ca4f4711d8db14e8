// The state of a softmax that sees its scores piece by piece (Milakov and Gimelshein 2018; Dao et
// al. 2022).
//
// F is float, double or a vector of them: lanes are independent rows. Scores are in base 2: a
// caller folds log2(e) into them, and lse() is back in natural units. One rule for empty rows: a
// row without a score above -inf has sum 0, inverse() 0 and lse() -inf, and never meets (-inf) -
// (-inf), for the reference starts at a finite number.
#pragma once

#include <limits>

#include "math/scalar.h"

namespace suffuse {

SUFFUSE_HD SUFFUSE_INLINE float exp2_fast(float x) { return ::exp2f(x); }
SUFFUSE_HD SUFFUSE_INLINE double exp2_fast(double x) { return ::exp2(x); }
SUFFUSE_HD SUFFUSE_INLINE float log(float x) { return ::logf(x); }
SUFFUSE_HD SUFFUSE_INLINE double log(double x) { return ::log(x); }
SUFFUSE_HD SUFFUSE_INLINE double select(bool m, double a, double b) { return m ? a : b; }

template <class T>
struct ElementOf {
  using type = T;
};
template <class T, template <class> class Vector>
struct ElementOf<Vector<T>> {
  using type = T;
};

template <class F>
struct SoftmaxState {
  using T = typename ElementOf<F>::type;
  static constexpr T kLn2 = T(0.693147180559945309417232121458176568);
  static constexpr T kLowest = std::numeric_limits<T>::lowest();
  static constexpr T kInf = std::numeric_limits<T>::infinity();

  F top = F(kLowest);  // the reference: at least the largest score, once raised
  F sum = F(0);        // of 2^(score - top)

  // Moves the reference up to score where that is larger. Returns the factor for all that was
  // summed with the old one.
  SUFFUSE_HD SUFFUSE_INLINE F raise(F score) {
    const F next = max(score, top);  // a NaN score is kept out here and reaches the sum as 2^NaN
    const F keep = exp2_fast(top - next);
    top = next;
    sum = sum * keep;
    return keep;
  }
  // Adds one score. Returns its weight 2^(score - top); keep is the factor for earlier weights.
  SUFFUSE_HD SUFFUSE_INLINE F push(F score, F& keep) {
    keep = raise(score);
    const F weight = exp2_fast(score - top);
    sum = sum + weight;
    return weight;
  }
  // Joins a state over other scores: the caller's accumulator becomes keep * mine + take * other's.
  SUFFUSE_HD SUFFUSE_INLINE void merge(SoftmaxState other, F& keep, F& take) {
    keep = raise(other.top);
    take = exp2_fast(other.top - top);
    sum = sum + take * other.sum;
  }
  SUFFUSE_HD SUFFUSE_INLINE F inverse() const { return select(sum == F(0), F(0), F(1) / sum); }
  SUFFUSE_HD SUFFUSE_INLINE F lse() const {
    const F value = top * F(kLn2) + log(sum);
    return select(sum == F(0), F(-kInf), value);
  }
};

}  // namespace suffuse
