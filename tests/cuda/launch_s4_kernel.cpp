// Every way that s4_kernel's products are launched: dtypes, results, tiles, chunks, groups.
#include <cstdlib>

#include "ops/s4_kernel/cuda/launch.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch_vandermonde(DType dtype, int64_t rows, int64_t length) {
  S4VandermondeParams p{};
  p.rows = rows;
  p.terms = 32;
  p.length = length;
  p.dtype = dtype;
  for (bool real : {false, true}) {
    p.real = real;
    s4_vandermonde_cuda(p, nullptr);
  }
}

void launch_moments(DType dtype, int64_t rows, int64_t length) {
  S4MomentsParams p{};
  p.rows = rows;
  p.terms = 32;
  p.length = length;
  p.dtype = dtype;
  s4_moments_cuda(p, nullptr);
}

void launch_cauchy(DType dtype, int64_t rows, int64_t outputs, int64_t terms) {
  S4CauchyParams p{};
  p.rows = rows;
  p.outputs = outputs;
  p.terms = terms;
  p.power = 1;
  p.dtype = dtype;
  for (bool conj : {false, true}) {
    p.conj = conj;
    s4_cauchy_cuda(p, nullptr);
  }
}

void launch_all() {
  for (DType dtype : {DType::f64, DType::f32}) {
    for (int64_t length : {int64_t(1), int64_t(1) << 12, int64_t(1) << 20}) {
      launch_vandermonde(dtype, 3, length);
      launch_vandermonde(dtype, 1 << 10, length);
      launch_moments(dtype, 3, length);
      launch_moments(dtype, 1 << 10, length);
    }
    launch_cauchy(dtype, 3, 1 << 20, 32);
    launch_cauchy(dtype, 1 << 20, 32, 1 << 20);
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
