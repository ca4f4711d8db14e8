// C entries of the matrix product of sm_90a for the emulator.
#include "cuda/gemm_sm90.cuh"

#include "cuda/host/make_tensor_map.h"
#include "emulator/emulator.h"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

using gpu::Major;

struct Operands {
  const void* a;
  int64_t a_row;  // bytes between rows
  const void* b;
  int64_t b_row;
  void* c;
  int64_t c_row;
  GemmSizes sizes;
  int multiprocessors;
};

template <class Gemm>
void run(const Operands& o) {
  const GemmMaps maps = gemm_sm90_maps<Gemm>(o.sizes, o.a, o.a_row, o.b, o.b_row, o.c, o.c_row);
  const GemmSm90Params p{make_tensor_map(maps.a), make_tensor_map(maps.b), make_tensor_map(maps.c),
                         o.sizes};
  const LaunchShape shape = gemm_sm90_shape<Gemm>(o.sizes, o.multiprocessors);
  emulator::launch(
      "gemm_sm90_kernel", gemm_sm90_kernel<Gemm>, dim3(static_cast<unsigned>(shape.blocks)),
      dim3(static_cast<unsigned>(shape.threads)), static_cast<size_t>(shape.shared_bytes), p);
}

// Two consumers and few columns and stages, so that small products have several of all; where rows
// lie along N, two spans of columns.
template <class S, class O>
void run_layout(int64_t layout, const Operands& o) {
  if (layout == 0) return run<GemmSm90<S, O, Major::k, Major::k, 64, 2, 3>>(o);
  if constexpr (sizeof(S) == 2) {
    if (layout == 1) return run<GemmSm90<S, O, Major::k, Major::mn, 128, 2, 3>>(o);
#if !defined(SUFFUSE_MUTANT)
    if (layout == 2) return run<GemmSm90<S, O, Major::mn, Major::mn, 128, 2, 3>>(o);
    if (layout == 3) return run<GemmSm90<S, O, Major::k, Major::mn, 32, 1, 3>>(o);
    run<GemmSm90<S, O, Major::k, Major::mn, 16, 2, 3>>(o);
#endif
  }
}

}  // namespace
}  // namespace suffuse

using namespace suffuse;

// type: 0 bfloat16, 1 float16, 2 float. layout: 0 A B^T, 1 A B, 2 A^T B, of what lies in memory, 3
// and 4 A B in tiles of 32 and 16 columns, which have narrower swizzles; rows are a_row, b_row and
// c_row bytes apart.
EMULATED void emulated_gemm_sm90(int64_t type, int64_t layout, int64_t float_out, const void* a,
                                 int64_t a_row, const void* b, int64_t b_row, void* c,
                                 int64_t c_row, int64_t m, int64_t n, int64_t k,
                                 int64_t multiprocessors) {
  const GemmSizes sizes{static_cast<int32_t>(m), static_cast<int32_t>(n), static_cast<int32_t>(k)};
  const Operands o{a, a_row, b, b_row, c, c_row, sizes, static_cast<int>(multiprocessors)};
#if !defined(SUFFUSE_MUTANT)
  if (float_out && type == 0) return run_layout<bfloat16, float>(layout, o);
  if (type == 2) return run_layout<float, float>(layout, o);
  if (type == 1) return run_layout<float16, float16>(layout, o);
#else
  (void)type, (void)float_out;
#endif
  run_layout<bfloat16, bfloat16>(layout, o);
}

#if !defined(SUFFUSE_MUTANT)
// The sizes that a device gets, of contiguous bfloat16, A B^T: tiles of 128 x 128, 128 x 256, 64 x
// 128 and 192 x 128.
EMULATED void emulated_gemm_sm90_sized(int64_t size, const void* a, const void* b, void* c,
                                       int64_t m, int64_t n, int64_t k) {
  using S = bfloat16;
  const GemmSizes sizes{static_cast<int32_t>(m), static_cast<int32_t>(n), static_cast<int32_t>(k)};
  const Operands o{a, 2 * k, b, 2 * k, c, 2 * n, sizes, 1};
  if (size == 0) return run<GemmSm90<S, S, Major::k, Major::k, 128, 2, 4>>(o);
  if (size == 1) return run<GemmSm90<S, S, Major::k, Major::k, 256, 2, 3>>(o);
  if (size == 2) return run<GemmSm90<S, S, Major::k, Major::k, 128, 1, 4>>(o);
  run<GemmSm90<S, S, Major::k, Major::k, 128, 3, 3>>(o);
}
#endif
