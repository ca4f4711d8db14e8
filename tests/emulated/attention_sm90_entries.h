// C entries of attention's sm_90a kernel for the emulator. Each type has a library of its own:
// EMULATED_ATTENTION_TYPE.
#pragma once

#include "cuda/host/make_tensor_map.h"
#include "emulated/launcher.h"
#include "ops/attention/cuda/passes_sm90.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

using S = EMULATED_ATTENTION_TYPE;

// Planted bugs are tried on one head dim alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
void forward(const AttentionParams& p, int head, bool general) {
  general
      ? attention_forward_sm90_passes<S, true, 64>(p, head, make_tensor_map, EmulatedLauncher())
      : attention_forward_sm90_passes<S, false, 64>(p, head, make_tensor_map, EmulatedLauncher());
}
#else
void forward(const AttentionParams& p, int head, bool general) {
  if (!general || attention_is_general(p)) {
    return attention_forward_sm90<S>(p, head, make_tensor_map, EmulatedLauncher());
  }
  attention_forward_sm90_passes<S, true, 64, 128>(p, head, make_tensor_map, EmulatedLauncher());
}
#endif

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_attention_params_bytes() { return sizeof(suffuse::AttentionParams); }

EMULATED int64_t emulated_attention_sm90_head(const suffuse::AttentionParams* p,
                                              int64_t capability) {
  return suffuse::attention_sm90_head(*p, static_cast<int>(capability));
}

// Launches nothing where the kernel does not take the call. general: the kernel with all features
// even where they are not needed.
EMULATED void emulated_attention_fwd(const suffuse::AttentionParams* p, int64_t general) {
  const int head = suffuse::attention_sm90_head(*p, 90);
  suffuse::forward(*p, head, general || suffuse::attention_is_general(*p));
}
