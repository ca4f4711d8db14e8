// The CUDA forward of attention on sm_90a: float16.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes_sm90.cuh"

namespace suffuse {

void attention_fwd_cuda_sm90_f16(const AttentionParams& p, int head, void* stream) {
  attention_forward_sm90<float16>(p, head, make_tensor_map, Launcher("attention", stream));
}

}  // namespace suffuse
