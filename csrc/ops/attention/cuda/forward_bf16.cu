// The CUDA forward of attention: bfloat16.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes.cuh"

namespace suffuse {

void attention_fwd_cuda_bf16(const AttentionParams& p, void* stream) {
  attention_forward<bfloat16, false>(p, Launcher("attention", stream));
}

}  // namespace suffuse
