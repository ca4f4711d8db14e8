// What the entries of attention's gradients share: each file has one element type.
#pragma once

#include "emulated/launcher.h"
#include "ops/attention/cuda/backward_passes.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {

// Planted bugs are tried on these alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
constexpr bool kBuilt(int head) { return head == 64 || head == 192; }
#else
constexpr bool kBuilt(int) { return true; }
#endif

template <class S, bool kTf32, int kHead>
void run_backward_of(const AttentionGradParams& g, bool general) {
  if constexpr (kBuilt(kHead)) {
    if (general || attention_grad_is_general(g)) {
      attention_backward_passes<S, kHead, true, kTf32>(g, EmulatedLauncher());
    } else {
      attention_backward_passes<S, kHead, false, kTf32>(g, EmulatedLauncher());
    }
  }
}

template <class S, bool kTf32>
void run_backward(const AttentionGradParams& g, bool general) {
  switch (attention_head(g.forward)) {
    case 32:
      return run_backward_of<S, kTf32, 32>(g, general);
    case 64:
      return run_backward_of<S, kTf32, 64>(g, general);
    case 96:
      return run_backward_of<S, kTf32, 96>(g, general);
    case 128:
      return run_backward_of<S, kTf32, 128>(g, general);
    case 192:
      return run_backward_of<S, kTf32, 192>(g, general);
    case 256:
      return run_backward_of<S, kTf32, 256>(g, general);
  }
}

}  // namespace suffuse

// Entries of one element type: general takes the kernels with all features where they are not
// needed.
EMULATED int64_t emulated_attention_grad_params_bytes() {
  return sizeof(suffuse::AttentionGradParams);
}
EMULATED int64_t emulated_attention_bwd_floats(const suffuse::AttentionGradParams* g) {
  return suffuse::attention_bwd_floats(g->forward);
}
