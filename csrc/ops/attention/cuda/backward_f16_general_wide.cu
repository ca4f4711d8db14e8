// Attention's gradients: float16, with all features, head dims 128 to 256.
#include "ops/attention/cuda/backward_instances.cuh"

namespace suffuse {

template void launch_attention_backward<float16, true, false, 128, 192, 256>(
    const AttentionGradParams& g, void* stream);

}  // namespace suffuse
