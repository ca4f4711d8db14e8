// What the CPU kernels of sampler_step share: the operands of one sample, F and D of a block of
// vectors.
#pragma once

#include "ops/sampler_step/coefficients.h"
#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

// N elements, or the first n of them.
template <class V, bool kPartial, class S>
SUFFUSE_INLINE V read(const S* p, int n) {
  if constexpr (kPartial) {
    return load<V>(p, n);
  } else {
    return load<V>(p);
  }
}

// x and the model outputs of one sample, and the weights that make D of them. X and M: their
// storage types.
template <class X, class M>
struct DataOperands {
  using T = Arithmetic<X>;
  using V = Vec<T>;

  const X* x;
  const M* models[SamplerStepParams::kMaxModels];
  T guidance[SamplerStepParams::kMaxModels];
  int model_count;
  StepWeights<T> w;

  DataOperands(const SamplerStepParams& p, int64_t sample)
      : x(static_cast<const X*>(p.x.data) + sample * p.x.batch_stride),
        model_count(p.model_count),
        w(step_weights<T>(p, sample)) {
    for (int k = 0; k < model_count; k++) {
      models[k] = static_cast<const M*>(p.models[k].data) + sample * p.models[k].batch_stride;
      guidance[k] = step_coefficient<T>(p, sample, SamplerStepColumn::guidance + k);
    }
  }

  // F = sum of guidance_k models[k] for U vectors from element i on.
  template <int U, bool kPartial>
  SUFFUSE_INLINE void combine(int64_t i, int n, V (&f)[U]) const {
    for (int u = 0; u < U; u++) {
      f[u] = V(guidance[0]) * read<V, kPartial>(models[0] + i + u * V::N, n);
    }
    for (int k = 1; k < model_count; k++) {
      for (int u = 0; u < U; u++) {
        f[u] = fma(V(guidance[k]), read<V, kPartial>(models[k] + i + u * V::N, n), f[u]);
      }
    }
  }
};

// Calls body(sample, first, last) for the runs of whole samples' elements that the units [begin,
// end) make up.
template <class Body>
SUFFUSE_INLINE void for_each_run(const SamplerStepParams& p, int64_t begin, int64_t end,
                                 Body&& body) {
  const int64_t chunks = sampler_step_chunks(p);
  for (int64_t unit = begin; unit < end;) {
    const int64_t sample = unit / chunks,
                  stop = (sample + 1) * chunks < end ? (sample + 1) * chunks : end;
    const int64_t first = (unit - sample * chunks) * kSamplerStepChunk;
    const int64_t last = (stop - sample * chunks) * kSamplerStepChunk;
    body(sample, first, last < p.elements ? last : p.elements);
    unit = stop;
  }
}

// Calls fn(X tag, M tag) with the storage types of x and of the model outputs; float64 goes with
// float64 only.
template <class Fn>
SUFFUSE_INLINE void visit_storage(const SamplerStepParams& p, Fn&& fn) {
  visit_dtype(p.x_type, [&](auto x) {
    visit_dtype(p.model_type, [&](auto m) {
      using X = typename decltype(x)::type;
      using M = typename decltype(m)::type;
      if constexpr ((sizeof(X) == 8) == (sizeof(M) == 8)) fn(x, m);
    });
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
