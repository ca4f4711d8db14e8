// Every way that selective_scan is launched: all dtypes, all numbers of lanes and states a lane, B
// and C varying and constant, time in one segment and in many.
#include <cstdlib>

#include "ops/selective_scan/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch(DType dtype, bool varying, int64_t batch, int64_t channels, int64_t length,
            int64_t states) {
  SelectiveScanGradParams g{};
  SelectiveScanParams& p = g.forward;
  p.dtype = dtype;
  p.batch = batch;
  p.channels = channels;
  p.length = length;
  p.states = states;
  p.groups = 1;
  p.chunk = kScanSteps;
  p.b.varying = p.c.varying = varying;
  selective_scan_fwd_cuda(p, nullptr);
  selective_scan_bwd_cuda(g, nullptr);
}

void launch_update(DType dtype, DType state_dtype, int64_t batch, int64_t channels,
                   int64_t states) {
  StateUpdateParams p{};
  p.dtype = dtype;
  p.state_dtype = state_dtype;
  p.batch = batch;
  p.heads = channels;
  p.places = p.groups = 1;
  p.states = states;
  selective_state_update_cuda(p, nullptr);
}

void launch_all() {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (DType state_dtype : {DType::f32, DType::bf16, DType::f16}) {
      launch_update(dtype, state_dtype, 1, 1, 1);
      launch_update(dtype, state_dtype, 256, 5120, 16);
      launch_update(dtype, state_dtype, 4096, 16384, 256);
    }
  }
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (bool varying : {false, true}) {
      for (int64_t states : {1, 2, 4, 8, 16, 32, 64, 100, 128, 256}) {
        launch(dtype, varying, 2, 48, 0, states);
        launch(dtype, varying, 2, 48, 100, states);
        launch(dtype, varying, 1, 3, 1 << 20, states);
        launch(dtype, varying, 512, 5120, 1 << 20, states);
      }
      launch(dtype, varying, 0, 48, 100, 16);
      launch(dtype, varying, 2, 0, 100, 16);
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
