// Every way that guidance_gram is launched: all dtypes and numbers of tensors, small and large.
#include <cstdlib>

#include "ops/guidance_gram/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch(DType type, int32_t count, int64_t batch, int64_t elements) {
  GuidanceGramParams p{};
  p.type = type;
  p.count = count;
  p.batch = batch;
  p.elements = elements;
  p.pieces = guidance_gram_pieces(p);
  guidance_gram_cuda(p, nullptr);
}

void launch_all() {
  for (DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (int32_t count = 1; count <= GuidanceGramParams::kMaxTensors; count++) {
      launch(type, count, 3, 0);
      launch(type, count, 1, 5);
      launch(type, count, 4, 1 << 20);
      launch(type, count, 1, int64_t(1) << 40);
      launch(type, count, 1 << 20, 1 << 16);
    }
  }
}

}  // namespace
}  // namespace suffuse

// Argument: the compute capability, such as 80.
int main(int, char** arguments) {
  recording::set_compute_capability(std::atoi(arguments[1]));
  suffuse::launch_all();
  recording::print();
}
