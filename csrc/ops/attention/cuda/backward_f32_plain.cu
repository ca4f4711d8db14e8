// Attention's gradients: float, products made of three, without the features that need not be
// there.
#include "ops/attention/cuda/backward_instances.cuh"

namespace suffuse {

template void launch_attention_backward<float, false, false, 32, 64, 96, 128, 192, 256>(
    const AttentionGradParams& g, void* stream);

}  // namespace suffuse
