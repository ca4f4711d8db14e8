// The formula of a sampler step for one element, or one vector of them: F is float, double or Vec
// of either. Every sum is a chain of fused multiply-adds in a fixed order, so that all ISAs and the
// GPU give the same bits.
#pragma once

#include "math/scalar.h"

namespace suffuse {

// The coefficients of one sample in the type of the arithmetic, by column (SamplerStepColumn).
template <class F>
struct StepWeights {
  F x, model, data;
  F data_from_x, data_from_model, clip;
  F converted_x, converted_model, converted_data;
  F next_scale;
};

// D = clamp(k_x x + k_F F, -clip, clip). NaN stays NaN.
template <class F, class W>
SUFFUSE_HD SUFFUSE_INLINE F step_data(const StepWeights<W>& w, F x, F model) {
  const F raw = fma(F(w.data_from_x), x, F(w.data_from_model) * model);
  return min(F(w.clip), max(F(-w.clip), raw));
}

// clamp(D, -s, s) / s; NaN where s is NaN.
template <class F>
SUFFUSE_HD SUFFUSE_INLINE F step_rescale(F data, F s) {
  return min(s, max(-s, data)) / s;
}

// c_x x + c_F F + c_D D; the linear terms are added to it by fma(c, operand, sum).
template <class F, class W>
SUFFUSE_HD SUFFUSE_INLINE F step_sample(const StepWeights<W>& w, F x, F model, F data) {
  return fma(F(w.data), data, fma(F(w.model), model, F(w.x) * x));
}

// o_x x + o_F F + o_D D.
template <class F, class W>
SUFFUSE_HD SUFFUSE_INLINE F step_converted(const StepWeights<W>& w, F x, F model, F data) {
  return fma(F(w.converted_data), data, fma(F(w.converted_model), model, F(w.converted_x) * x));
}

// Between two neighbours of an ordered sample, as torch.quantile does.
template <class F>
SUFFUSE_HD SUFFUSE_INLINE F between(F below, F above, F fraction) {
  return fma(above - below, fraction, below);
}

}  // namespace suffuse
