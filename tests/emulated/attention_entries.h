// C entries of attention's CUDA kernels for the emulator. Each type has a library of its own:
// EMULATED_ATTENTION_TYPE, and EMULATED_ATTENTION_TF32 for the products of float.
#pragma once

#include "emulator/emulator.h"
#include "ops/attention/cuda/passes.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

struct Launcher {
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  A... arguments) const {
    emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                     dim3(static_cast<unsigned>(shape.threads)),
                     static_cast<size_t>(shape.shared_bytes), arguments...);
  }
};

// Planted bugs are tried on one head dim alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <bool kGeneral>
void forward(const AttentionParams& p) {
  attention_forward_passes<EMULATED_ATTENTION_TYPE, kGeneral, EMULATED_ATTENTION_TF32, 64>(
      p, Launcher());
}
void decode(const AttentionDecodeParams& d) {
  attention_decode_passes<EMULATED_ATTENTION_TYPE, 64>(d, Launcher());
}
#else
template <bool kGeneral>
void forward(const AttentionParams& p) {
  attention_forward_passes<EMULATED_ATTENTION_TYPE, kGeneral, EMULATED_ATTENTION_TF32, 32, 64, 96,
                           128, 192, 256>(p, Launcher());
}
void decode(const AttentionDecodeParams& d) {
  attention_decode_passes<EMULATED_ATTENTION_TYPE, 32, 64, 96, 128, 192, 256>(d, Launcher());
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
