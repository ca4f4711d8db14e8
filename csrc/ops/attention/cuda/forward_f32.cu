// The CUDA forward of attention: float, as exact as sums of float are.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes.cuh"

namespace suffuse {

void attention_fwd_cuda_f32(const AttentionParams& p, void* stream) {
  attention_forward<float, false>(p, Launcher("attention", stream));
}

}  // namespace suffuse
