// What the kernels of sampler_step make D from.
#pragma once

#include "cuda/groups.cuh"
#include "ops/sampler_step/coefficients.h"

namespace suffuse {

// x, and F = sum of guidance_i models[i].
template <class X, class M, class T, int W>
SUFFUSE_DEVICE void load_data_operands(const SamplerStepParams& p, int64_t sample,
                                       const Group& group, T (&x)[W], T (&model)[W]) {
  load_group(static_cast<const X*>(p.x.data) + sample * p.x.batch_stride, group, x);
#pragma unroll
  for (int k = 0; k < W; k++) model[k] = T(0);
  for (int i = 0; i < p.model_count; i++) {
    const M* output = static_cast<const M*>(p.models[i].data) + sample * p.models[i].batch_stride;
    const T weight = step_coefficient<T>(p, sample, SamplerStepColumn::guidance + i);
    T part[W];
    load_group(output, group, part);
#pragma unroll
    for (int k = 0; k < W; k++) {
      model[k] = i == 0 ? weight * part[k] : fma(weight, part[k], model[k]);
    }
  }
}

}  // namespace suffuse
