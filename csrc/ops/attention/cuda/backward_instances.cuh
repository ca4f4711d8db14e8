// The body of backward_instances.h, for the sources that instantiate it.
#pragma once

#include "cuda/launcher.cuh"
#include "ops/attention/cuda/backward_instances.h"
#include "ops/attention/cuda/backward_passes.cuh"

namespace suffuse {

template <class S, bool kGeneral, bool kTf32, int... kHeads>
void launch_attention_backward(const AttentionGradParams& g, void* stream) {
  const Launcher launch("attention", stream);
  const int head = attention_head(g.forward);
  ((head == kHeads ? attention_backward_passes<S, kHeads, kGeneral, kTf32>(g, launch) : void()),
   ...);
}

}  // namespace suffuse
