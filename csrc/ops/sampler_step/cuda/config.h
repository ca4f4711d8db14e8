// Launch shapes of the CUDA kernels of sampler_step: plain functions of the params.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/groups.h"
#include "cuda/launch_shape.h"
#include "ops/sampler_step/params.h"

namespace suffuse {

// Bytes of an element of the widest tensor that the step touches.
inline int64_t sampler_step_widest(const SamplerStepParams& p) {
  const int64_t x = sizeof_dtype(p.x_type), model = sizeof_dtype(p.model_type);
  const int64_t next = p.next_input ? sizeof_dtype(p.next_type) : 0;
  const int64_t wider = x > model ? x : model;
  return wider > next ? wider : next;
}

constexpr int kSamplerStepThreads = 256;

inline LaunchShape sampler_step_shape(const SamplerStepParams& p) {
  constexpr int64_t kMostBlocks = 16384;  // each thread goes on at a stride of the grid
  const int group = group_size(sampler_step_widest(p));
  const int64_t groups = p.batch * groups_of_sample(p.batch, p.elements, group);
  const int64_t blocks = (groups + kSamplerStepThreads - 1) / kSamplerStepThreads;
  return {blocks < kMostBlocks ? blocks : kMostBlocks, kSamplerStepThreads, 0};
}

// Calls fn(TypeTag<X>, TypeTag<M>, group) with the storage types of x and of the model outputs and
// the group's size as a constant: the template arguments of the step kernel. float64 goes with
// float64 only.
template <class Fn>
void visit_sampler_step(const SamplerStepParams& p, Fn&& fn) {
  visit_dtype(p.x_type, [&](auto x) {
    visit_dtype(p.model_type, [&](auto m) {
      constexpr int kX = sizeof(typename decltype(x)::type),
                    kM = sizeof(typename decltype(m)::type);
      if constexpr ((kX == 8) == (kM == 8)) {
        constexpr int kOwn = group_size(kX > kM ? kX : kM);
        if constexpr (kOwn == 8) {
          if (sampler_step_widest(p) == 4) return fn(x, m, std::integral_constant<int, 4>{});
        }
        fn(x, m, std::integral_constant<int, kOwn>{});
      }
    });
  });
}

}  // namespace suffuse
