// C entry of the CUDA kernel that writes to a cache of keys and values, for the emulator.
#include "emulated/launcher.h"
#include "ops/attention/cuda/append.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

EMULATED int64_t emulated_attention_append_params_bytes() {
  return sizeof(suffuse::AttentionAppendParams);
}

EMULATED void emulated_attention_append(const suffuse::AttentionAppendParams* p) {
  suffuse::attention_append_pass(*p, suffuse::EmulatedLauncher());
}
