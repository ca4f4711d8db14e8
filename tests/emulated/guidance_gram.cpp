// C entries of the CUDA kernels of guidance_gram for the emulator.
#include "emulator/emulator.h"
#include "ops/guidance_gram/cuda/config.h"
#include "ops/guidance_gram/cuda/kernel.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, A... arguments) {
  emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                   dim3(static_cast<unsigned>(shape.threads)),
                   static_cast<size_t>(shape.shared_bytes), arguments...);
}

// Planted bugs are tried on float alone, which compiles faster.
#if defined(SUFFUSE_MUTANT)
template <class S, int N>
constexpr bool kBuilt = std::is_same_v<S, float> && N == 3;
#else
template <class S, int N>
constexpr bool kBuilt = true;
#endif

template <class S, int N>
void run(const GuidanceGramParams& p) {
  if (p.pieces > 0) {
    launch("guidance_gram_rows_kernel", guidance_gram_rows_kernel<S, N>,
           guidance_gram_rows_shape<N>(p), p, guidance_gram_rounds(p));
  }
  launch("guidance_gram_finish_kernel", guidance_gram_finish_kernel<N>,
         guidance_gram_finish_shape(p), p);
}

}  // namespace
}  // namespace suffuse

EMULATED int64_t emulated_guidance_gram_params_bytes() {
  return sizeof(suffuse::GuidanceGramParams);
}

// Rows of partials a sample, and doubles in a row.
EMULATED int64_t emulated_guidance_gram_pieces(const suffuse::GuidanceGramParams* p) {
  return suffuse::guidance_gram_pieces_cuda(*p);
}
EMULATED int64_t emulated_guidance_gram_row(const suffuse::GuidanceGramParams* p) {
  return suffuse::gram_row(p->count);
}

EMULATED void emulated_guidance_gram(const suffuse::GuidanceGramParams* p) {
  suffuse::visit_guidance_gram(*p, [&](auto type, auto count) {
    using S = typename decltype(type)::type;
    constexpr int N = decltype(count)::value;
    if constexpr (suffuse::kBuilt<S, N>) suffuse::run<S, N>(*p);
  });
}
