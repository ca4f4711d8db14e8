// C entries of attention's CUDA kernels for the emulator. Each type has a library of its own:
// EMULATED_ATTENTION_TYPE, and EMULATED_ATTENTION_TF32 for the products of float.
#pragma once

#include "emulated/launcher.h"
#include "ops/attention/cuda/passes.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

// Planted bugs are tried on one head dim alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <bool kGeneral>
void forward(const AttentionParams& p) {
  attention_forward_passes<EMULATED_ATTENTION_TYPE, kGeneral, EMULATED_ATTENTION_TF32, 64>(
      p, EmulatedLauncher());
}
void decode(const AttentionDecodeParams& d) {
  attention_decode_passes<EMULATED_ATTENTION_TYPE, 64>(d, EmulatedLauncher());
}
#else
template <bool kGeneral>
void forward(const AttentionParams& p) {
  attention_forward_passes<EMULATED_ATTENTION_TYPE, kGeneral, EMULATED_ATTENTION_TF32, 32, 64, 96,
                           128, 192, 256>(p, EmulatedLauncher());
}
void decode(const AttentionDecodeParams& d) {
  attention_decode_passes<EMULATED_ATTENTION_TYPE, 32, 64, 96, 128, 192, 256>(d,
                                                                              EmulatedLauncher());
}
#endif

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_attention_params_bytes() { return sizeof(suffuse::AttentionParams); }

// general: the kernel with all features even where they are not needed.
EMULATED void emulated_attention_fwd(const suffuse::AttentionParams* p, int64_t general) {
  if (general || suffuse::attention_is_general(*p)) {
    suffuse::forward<true>(*p);
  } else {
    suffuse::forward<false>(*p);
  }
}

EMULATED int64_t emulated_attention_decode_params_bytes() {
  return sizeof(suffuse::AttentionDecodeParams);
}

// Cuts the keys; floats of workspace that the call then needs.
EMULATED int64_t emulated_attention_decode_floats(suffuse::AttentionDecodeParams* d,
                                                  int64_t splits) {
  suffuse::attention_cut_keys(*d, splits);
  return suffuse::attention_decode_floats(*d);
}

EMULATED void emulated_attention_decode(const suffuse::AttentionDecodeParams* d) {
  suffuse::decode(*d);
}
