// The CUDA forward of attention on sm_90a: bfloat16.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes_sm90.cuh"

namespace suffuse {

void attention_fwd_cuda_sm90_bf16(const AttentionParams& p, int head, void* stream) {
  attention_forward_sm90<bfloat16>(p, head, make_tensor_map, Launcher("attention", stream));
}

}  // namespace suffuse
