// C entry of the CUDA kernel that writes to a cache of keys and values, for the emulator.
#include "emulator/emulator.h"
#include "ops/attention/cuda/append.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

struct Launch {
  template <class... P>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  const AttentionAppendParams& p) const {
    emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                     dim3(static_cast<unsigned>(shape.threads)),
                     static_cast<size_t>(shape.shared_bytes), p);
  }
};

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_attention_append_params_bytes() {
  return sizeof(suffuse::AttentionAppendParams);
}

EMULATED void emulated_attention_append(const suffuse::AttentionAppendParams* p) {
  suffuse::attention_append_pass(*p, suffuse::Launch());
}
