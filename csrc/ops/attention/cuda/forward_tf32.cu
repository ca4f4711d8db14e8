// The CUDA forward of attention: float rounded to tf32.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes.cuh"

namespace suffuse {

void attention_fwd_cuda_tf32(const AttentionParams& p, void* stream) {
  attention_forward<float, true>(p, Launcher("attention", stream));
}

}  // namespace suffuse
