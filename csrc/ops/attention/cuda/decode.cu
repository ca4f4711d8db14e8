// The CUDA kernels of split-KV decoding.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/passes.cuh"

namespace suffuse {

void attention_decode_cuda_chunks(const AttentionDecodeParams& d, void* stream) {
  const Launcher launch("attention", stream);
  switch (d.forward.dtype) {
    case DType::bf16:
      return attention_decode_passes<bfloat16, 32, 64, 96, 128, 192, 256>(d, launch);
    case DType::f16:
      return attention_decode_passes<float16, 32, 64, 96, 128, 192, 256>(d, launch);
    case DType::f32:
      return attention_decode_passes<float, 32, 64, 96, 128, 192, 256>(d, launch);
    case DType::f64:
      return;  // attention_decode_cuda refuses it
  }
}

}  // namespace suffuse
