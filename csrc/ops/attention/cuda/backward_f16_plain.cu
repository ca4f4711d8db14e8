// Attention's gradients: float16, without the features that need not be there.
#include "ops/attention/cuda/backward_instances.cuh"

namespace suffuse {

template void launch_attention_backward<float16, false, false, 32, 64, 96, 128, 192, 256>(
    const AttentionGradParams& g, void* stream);

}  // namespace suffuse
