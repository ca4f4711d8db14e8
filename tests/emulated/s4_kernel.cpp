// C entries of the CUDA kernels of s4_kernel for the emulator.
#include "emulator/emulator.h"
#include "ops/s4_kernel/cuda/cauchy.cuh"
#include "ops/s4_kernel/cuda/kernel.cuh"
#include "ops/s4_kernel/cuda/moments.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
using Wide = float;
#else
using Wide = double;
#endif

constexpr auto kLaunch = [](const char* name, auto kernel, const LaunchShape& shape,
                            auto... given) {
  emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                   dim3(static_cast<unsigned>(shape.threads)),
                   static_cast<size_t>(shape.shared_bytes), given...);
};

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_s4_params_bytes(int64_t which) {
  const int64_t bytes[] = {sizeof(suffuse::S4VandermondeParams), sizeof(suffuse::S4MomentsParams),
                           sizeof(suffuse::S4CauchyParams)};
  return bytes[which];
}

EMULATED int64_t emulated_s4_chunks(int64_t length) { return suffuse::s4_chunks(length); }

EMULATED int64_t emulated_s4_thread_rows(const suffuse::S4VandermondeParams* p) {
  return suffuse::s4_thread_rows(*p);
}

EMULATED void emulated_s4_vandermonde(const suffuse::S4VandermondeParams* p) {
  using namespace suffuse;
  p->dtype == DType::f64 ? with_s4_vandermonde_kernel<Wide>(*p, kLaunch)
                         : with_s4_vandermonde_kernel<float>(*p, kLaunch);
}

EMULATED void emulated_s4_moments(const suffuse::S4MomentsParams* p) {
  using namespace suffuse;
  p->dtype == DType::f64 ? with_s4_moments_kernels<Wide>(*p, kLaunch)
                         : with_s4_moments_kernels<float>(*p, kLaunch);
}

EMULATED void emulated_s4_cauchy(const suffuse::S4CauchyParams* p) {
  using namespace suffuse;
  p->dtype == DType::f64 ? with_s4_cauchy_kernel<Wide>(*p, kLaunch)
                         : with_s4_cauchy_kernel<float>(*p, kLaunch);
}
