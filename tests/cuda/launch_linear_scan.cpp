// Every way that linear_scan is launched: all dtypes, both directions, rows short, long and split.
#include <cstdlib>

#include "ops/linear_scan/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

struct Types {
  DType a, x;
  bool complex;
};
constexpr Types kTypes[] = {
    {DType::f64, DType::f64, false},   {DType::f32, DType::f32, false},
    {DType::bf16, DType::bf16, false}, {DType::f16, DType::f16, false},
    {DType::f32, DType::bf16, false},  {DType::f32, DType::f16, false},
    {DType::f64, DType::f64, true},    {DType::f32, DType::f32, true},
};

void launch(const Types& types, bool reverse, int64_t batch, int64_t channels, int64_t length) {
  LinearScanParams p{};
  p.batch = batch;
  p.channels = channels;
  p.length = length;
  p.reverse = reverse;
  p.complex = types.complex;
  p.a_dtype = types.a;
  p.dtype = types.x;
  linear_scan_cuda(p, nullptr, nullptr);
}

void launch_all() {
  for (const Types& types : kTypes) {
    for (bool reverse : {false, true}) {
      launch(types, reverse, 2, 3, 0);
      launch(types, reverse, 2, 3, 100);
      launch(types, reverse, 3, 3000, 1 << 20);
      launch(types, reverse, 1 << 10, 1 << 20, 1 << 20);
      launch(types, reverse, 1, 3, 1 << 20);
      launch(types, reverse, 1, 511, int64_t(1) << 40);
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
