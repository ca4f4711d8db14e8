// The CUDA forward of attention: float, as exact as sums of float are.
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/launcher.cuh"
#include "ops/attention/cuda/passes.cuh"

namespace suffuse {

void attention_fwd_cuda_f32(const AttentionParams& p, void* stream) {
  attention_forward<float, false>(p, AttentionLauncher{static_cast<cudaStream_t>(stream)});
}

}  // namespace suffuse
