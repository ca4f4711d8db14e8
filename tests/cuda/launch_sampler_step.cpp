// Every way that sampler_step is launched: all dtypes, with and without a threshold, small and
// large.
#include <cstdlib>

#include "common/error.h"
#include "ops/sampler_step/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};

void launch(DType x, DType model, DType next, int64_t batch, int64_t elements, bool threshold) {
  static char memory;
  SamplerStepParams p{};
  p.batch = batch;
  p.elements = elements;
  p.x_type = x;
  p.model_type = model;
  p.next_type = next;
  p.next_input = &memory;
  p.model_count = 1;
  p.quantile = 0.995;
  p.maximum = 2;
  p.scales = threshold ? &memory : nullptr;
  sampler_step_cuda(p, nullptr);
}

void launch_all() {
  for (DType x : kTypes) {
    for (DType model : kTypes) {
      if ((x == DType::f64) != (model == DType::f64)) continue;
      for (DType next : kTypes) {
        if ((x == DType::f64) != (next == DType::f64)) continue;
        for (bool threshold : {false, true}) {
          launch(x, model, next, 1, 5, threshold);
          launch(x, model, next, 3, 1 << 20, threshold);
        }
        launch(x, model, next, 2, int64_t(1) << 40, false);
        launch(x, model, next, int64_t(1) << 40, 2, false);
      }
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
