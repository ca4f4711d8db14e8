// Which kernel of sm_90a a call runs, for the launcher and for tests: as in passes.cuh.
#pragma once

#include "ops/attention/cuda/kernel_sm90.cuh"

namespace suffuse {

// `make`: makes a tensor map of a TensorLayout.
template <class Config, class MakeMap, class Launch>
void attention_forward_sm90_pass(const AttentionParams& p, const MakeMap& make,
                                 const Launch& launch) {
  const AttentionSm90Maps maps = attention_sm90_maps<Config>(p);
  const AttentionSm90Params params{make(maps.q), make(maps.k), make(maps.v), make(maps.out), p};
  launch("attention_forward_sm90_kernel", attention_forward_sm90_kernel<Config>,
         attention_sm90_shape<Config>(p), params);
}

// The forward of one type, for the head dims given; head: by attention_sm90_head.
template <class S, bool kGeneral, int... kHeads, class MakeMap, class Launch>
void attention_forward_sm90_passes(const AttentionParams& p, int head, const MakeMap& make,
                                   const Launch& launch) {
  ((head == kHeads
        ? attention_forward_sm90_pass<AttentionForwardSm90<S, kHeads, kGeneral>>(p, make, launch)
        : void()),
   ...);
}

// The forward of one type.
template <class S, class MakeMap, class Launch>
void attention_forward_sm90(const AttentionParams& p, int head, const MakeMap& make,
                            const Launch& launch) {
  if (attention_is_general(p)) {
    attention_forward_sm90_passes<S, true, 64, 128>(p, head, make, launch);
  } else {
    attention_forward_sm90_passes<S, false, 64, 128, 256>(p, head, make, launch);
  }
}

}  // namespace suffuse
