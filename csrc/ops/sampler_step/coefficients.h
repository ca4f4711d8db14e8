// Reading the coefficient table, on the host and on the device.
#pragma once

#include "math/lincomb.h"
#include "ops/sampler_step/params.h"

namespace suffuse {

// The type of the arithmetic for a storage type.
template <class S>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::type;

template <class T>
SUFFUSE_HD SUFFUSE_INLINE T step_coefficient(const SamplerStepParams& p, int64_t sample,
                                             int column) {
  const int64_t i = sample * p.coefficient_stride + column;
  return p.coefficient_type == DType::f64
             ? static_cast<T>(static_cast<const double*>(p.coefficients)[i])
             : static_cast<T>(static_cast<const float*>(p.coefficients)[i]);
}

template <class T>
SUFFUSE_HD SUFFUSE_INLINE StepWeights<T> step_weights(const SamplerStepParams& p, int64_t sample) {
  using C = SamplerStepColumn;
  StepWeights<T> w;
  w.x = step_coefficient<T>(p, sample, C::x);
  w.model = step_coefficient<T>(p, sample, C::model);
  w.data = step_coefficient<T>(p, sample, C::data);
  w.data_from_x = step_coefficient<T>(p, sample, C::data_from_x);
  w.data_from_model = step_coefficient<T>(p, sample, C::data_from_model);
  w.clip = step_coefficient<T>(p, sample, C::clip);
  w.converted_x = step_coefficient<T>(p, sample, C::converted_x);
  w.converted_model = step_coefficient<T>(p, sample, C::converted_model);
  w.converted_data = step_coefficient<T>(p, sample, C::converted_data);
  w.next_scale = step_coefficient<T>(p, sample, C::next_scale);
  return w;
}

// Where a quantile lies among n ordered numbers: between entries `below` and below + 1, `fraction`
// of the way.
struct QuantileRank {
  int64_t below;
  double fraction;
};
SUFFUSE_HD SUFFUSE_INLINE QuantileRank quantile_rank(double quantile, int64_t n) {
  const double rank = quantile * static_cast<double>(n - 1);
  const int64_t below = static_cast<int64_t>(rank);
  return {below, rank - static_cast<double>(below)};
}

// The bit patterns of non-negative numbers are ordered like the numbers, with NaN above all.
template <class T>
struct MagnitudeKey;
template <>
struct MagnitudeKey<float> {
  using Key = uint32_t;
  static constexpr Key infinity = 0x7f800000u;
};
template <>
struct MagnitudeKey<double> {
  using Key = unsigned long long;
  static constexpr Key infinity = 0x7ff0000000000000ull;
};

// s = clamp(quantile, 1, maximum), NaN where the sample has one.
template <class T>
SUFFUSE_HD SUFFUSE_INLINE T threshold_scale(T below, T above, double fraction, T maximum) {
  return min(maximum, max(T(1), between(below, above, static_cast<T>(fraction))));
}

}  // namespace suffuse
