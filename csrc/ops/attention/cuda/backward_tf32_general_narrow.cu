// Attention's gradients: float, products rounded to tf32, with all features, head dims 32 to 96.
#include "ops/attention/cuda/backward_instances.cuh"

namespace suffuse {

template void launch_attention_backward<float, true, true, 32, 64, 96>(const AttentionGradParams& g,
                                                                       void* stream);

}  // namespace suffuse
