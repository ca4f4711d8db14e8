// Every way that rotary is launched: all dtypes of x and the tables, in place and not, small and
// large.
#include <cstdlib>

#include "ops/rotary/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch(DType dtype, DType table_dtype, int64_t tokens, int64_t heads, int64_t columns,
            int64_t rotated) {
  RotaryParams p{};
  p.dtype = dtype;
  p.table_dtype = table_dtype;
  p.batch = 1;
  p.length = tokens;
  p.heads = heads;
  p.columns = columns;
  p.rotated = rotated;
  static char there;  // something that is not null
  p.x.data = &there;
  rotary_cuda(p, nullptr);
  p.out.data = &there;  // in place
  rotary_cuda(p, nullptr);
}

void launch_all() {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    for (DType table_dtype : {dtype, dtype == DType::f64 ? dtype : DType::f32}) {
      launch(dtype, table_dtype, 1, 1, 1, 0);
      launch(dtype, table_dtype, 7, 3, 37, 22);
      launch(dtype, table_dtype, 4096, 32, 128, 128);
      launch(dtype, table_dtype, 1 << 22, 64, 64, 32);
      launch(dtype, table_dtype, 1, 1, 1 << 20, 1 << 20);
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
