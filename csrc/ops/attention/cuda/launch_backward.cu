// Chooses the CUDA kernels of attention's gradients.
#include <string>

#include "common/error.h"
#include "ops/attention/cuda/backward_config.h"
#include "ops/attention/cuda/backward_instances.h"
#include "ops/attention/cuda/launch_backward.h"

namespace suffuse {
namespace {

template <class S, bool kTf32>
void launch(const AttentionGradParams& g, void* stream) {
  if (attention_grad_is_general(g)) {
    launch_attention_backward<S, true, kTf32, 32, 64, 96>(g, stream);
    launch_attention_backward<S, true, kTf32, 128, 192, 256>(g, stream);
  } else {
    launch_attention_backward<S, false, kTf32, 32, 64, 96, 128, 192, 256>(g, stream);
  }
}

void check(const AttentionParams& p) {
  constexpr int64_t kMost = int64_t{1} << 28;  // positions and their distances are 32-bit numbers
  if (attention_head(p) == 0) {
    throw Error("attention: q, v: expected head dims of at most 256 on CUDA, got D " +
                std::to_string(p.D) + " and Dv " + std::to_string(p.Dv));
  }
  if (p.T >= kMost || p.S >= kMost) {
    throw Error("attention: q, k: expected fewer than 2^28 rows on CUDA, got " +
                std::to_string(p.T) + " and " + std::to_string(p.S));
  }
}

}  // namespace

int64_t attention_bwd_cuda_floats(const AttentionGradParams& g) {
  return attention_bwd_floats(g.forward);
}

void attention_bwd_cuda(const AttentionGradParams& g, void* stream, bool tf32) {
  const AttentionParams& p = g.forward;
  check(p);
  switch (p.dtype) {
    case DType::f64:
      throw Error("attention: q: expected float32, bfloat16 or float16 on CUDA, got float64");
    case DType::f32:
      return tf32 ? launch<float, true>(g, stream) : launch<float, false>(g, stream);
    case DType::bf16:
      return launch<bfloat16, false>(g, stream);
    case DType::f16:
      return launch<float16, false>(g, stream);
  }
}

}  // namespace suffuse
