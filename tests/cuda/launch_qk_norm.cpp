// Every way that qk_norm is launched: all dtypes, with and without weights, narrow and wide heads,
// small and large.
#include <cstdlib>

#include "ops/qk_norm/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch(DType dtype, int64_t tokens, int64_t heads, int64_t columns, int64_t rotated) {
  QkNormGradParams g{};
  QkNormParams& p = g.forward;
  p.dtype = dtype;
  p.batch = 1;
  p.length = tokens;
  p.columns = columns;
  p.rotated = rotated;
  p.sides[0].heads = heads;
  p.sides[1].heads = (heads + 3) / 4;
  qk_norm_fwd_cuda(p, nullptr);
  qk_norm_bwd_cuda(g, nullptr);
  static char there;  // something that is not null
  g.grad_weight[0] = g.grad_weight[1] = &there;
  qk_norm_bwd_cuda(g, nullptr);
}

void launch_all() {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    launch(dtype, 0, 1, 64, 0);
    launch(dtype, 1, 1, 1, 0);
    launch(dtype, 7, 3, 37, 22);
    launch(dtype, 4096, 32, 128, 128);
    launch(dtype, 1 << 22, 64, 64, 32);
    launch(dtype, 5, 3, 2 * (16 / sizeof_dtype(dtype)) * 255, 64);
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
