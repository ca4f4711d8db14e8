// Every way that causal_conv1d is launched: all dtypes, both layouts, few taps and many, small and
// large.
#include <cstdlib>

#include "ops/causal_conv1d/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch(DType dtype, bool steps_adjacent, int64_t batch, int64_t channels, int64_t length,
            int64_t width) {
  CausalConv1dGradParams g{};
  CausalConv1dParams& p = g.forward;
  p.dtype = dtype;
  p.batch = batch;
  p.channels = channels;
  p.length = length;
  p.width = width;
  p.x = steps_adjacent ? ConvRows{nullptr, channels * length, length, 1}
                       : ConvRows{nullptr, channels * length, 1, channels};
  causal_conv1d_fwd_cuda(p, nullptr);
  static char there;  // something that is not null
  g.grad_initial.data = &there;
  g.partial_rows = causal_conv1d_partial_rows(p);
  if (causal_conv1d_grad_z(p) > 0) g.grad_z = &there;
  causal_conv1d_bwd_cuda(g, nullptr);

  CausalConv1dUpdateParams u{};
  u.dtype = dtype;
  u.batch = batch;
  u.channels = channels;
  u.length = 1;
  u.width = width;
  u.state_length = width - 1;
  causal_conv1d_update_cuda(u, nullptr);
}

void launch_all() {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (bool steps_adjacent : {true, false}) {
      for (int64_t width : {1, 4, 5, 256}) {
        launch(dtype, steps_adjacent, 1, 1, 1, width);
        launch(dtype, steps_adjacent, 2, 3, 0, width);
        launch(dtype, steps_adjacent, 2, 0, 3, width);
        launch(dtype, steps_adjacent, 3, 1537, 2049, width);
        launch(dtype, steps_adjacent, 1, 4096, 1 << 20, width);
        launch(dtype, steps_adjacent, 1 << 20, 64, 1, width);
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
