// C entries of the GEMM of sm_80 for the emulator.
#include "cuda/gemm_sm80.cuh"
#include "emulator/emulator.h"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

struct Operands {
  const void *a, *b;
  void* c;
  int m, n, k;
  int64_t stride_a, stride_b, stride_c;
};

template <class Config, class Out, int kBytes>
void run(const Operands& o) {
  using S = typename Config::S;
  const auto matrix = [&](const void* data, int64_t stride, bool transposed, int rows,
                          int columns) {
    return Matrix<const S>{static_cast<const S*>(data), stride, transposed ? columns : rows,
                           transposed ? rows : columns};
  };
  const GemmSm80Params<S, Out> p = {matrix(o.a, o.stride_a, Config::kTransposedA, o.m, o.k),
                                    matrix(o.b, o.stride_b, Config::kTransposedB, o.k, o.n),
                                    {static_cast<Out*>(o.c), o.stride_c, o.m, o.n},
                                    o.k};
  constexpr int kOutBytes = kBytes < int{sizeof(Out)} ? sizeof(Out) : kBytes;
  const LaunchShape shape = gemm_sm80_shape<Config>(p);
  emulator::launch("gemm_sm80_kernel", gemm_sm80_kernel<Config, Out, kBytes, kOutBytes>,
                   dim3(static_cast<unsigned>(shape.blocks)),
                   dim3(static_cast<unsigned>(shape.threads)),
                   static_cast<size_t>(shape.shared_bytes), p);
}

// Small tiles, so that small products have several of them and of their steps.
template <class S, class Out, bool kTransposedA, bool kTransposedB>
void run_bytes(const Operands& o, int64_t bytes) {
  constexpr int kStages = std::is_same_v<S, float16> ? 2 : 3;
  using Config = GemmSm80<S, 64, 64, 2, 2, kStages, kTransposedA, kTransposedB>;
  if (bytes == 16) return run<Config, Out, 16>(o);
  run<Config, Out, int{sizeof(S)}>(o);
}

template <class S, class Out>
void run_layout(const Operands& o, int64_t layout, int64_t bytes) {
  if (layout == 0) return run_bytes<S, Out, false, true>(o, bytes);
  if (layout == 1) return run_bytes<S, Out, false, false>(o, bytes);
  run_bytes<S, Out, true, false>(o, bytes);
}

template <class Fn>
void visit(int64_t type, Fn fn) {
  if (type == 0) return fn(TypeTag<float>());
  if (type == 1) return fn(TypeTag<bfloat16>());
  fn(TypeTag<float16>());
}

}  // namespace
}  // namespace suffuse

using namespace suffuse;

// layout: 0 A B^T, 1 A B, 2 A^T B, of what lies in memory. bytes: of one copy.
EMULATED void emulated_gemm(int64_t type, int64_t layout, int64_t bytes, int64_t float_out,
                            const void* a, int64_t stride_a, const void* b, int64_t stride_b,
                            void* c, int64_t stride_c, int64_t m, int64_t n, int64_t k) {
  const Operands o = {
      a,        b,        c,       static_cast<int>(m), static_cast<int>(n), static_cast<int>(k),
      stride_a, stride_b, stride_c};
  visit(type, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (float_out) return run_layout<S, float>(o, layout, bytes);
    run_layout<S, S>(o, layout, bytes);
  });
}

// The size that a device gets, 128 x 128 with 4 stages: A B^T of bfloat16.
EMULATED void emulated_gemm_large(const void* a, const void* b, void* c, int64_t m, int64_t n,
                                  int64_t k) {
  run<GemmSm80<bfloat16, 128, 128, 2, 4, 4, false, true>, bfloat16, 16>(
      {a, b, c, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), k, k, n});
}

// copy_bytes of a matrix of 16-bit elements.
EMULATED int64_t emulated_copy_bytes(const void* data, int64_t stride, int64_t columns) {
  return copy_bytes(Matrix<const bfloat16>{static_cast<const bfloat16*>(data), stride, 1,
                                           static_cast<int>(columns)});
}
