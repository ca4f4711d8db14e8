// C entries of the building blocks for the emulator.
#include "emulated/blocks.cuh"

#include "emulator/emulator.h"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), int64_t blocks, int64_t threads,
            size_t shared_bytes, A... a) {
  emulator::launch(name, kernel, dim3(static_cast<unsigned>(blocks)),
                   dim3(static_cast<unsigned>(threads)), shared_bytes, a...);
}

template <class S, int kRows, int kColumns, int kStages>
void copy_tiles(const Matrix<const S>& from, const Matrix<S>& to, int64_t bytes) {
  const auto run = [&](auto tag) {
    constexpr int kBytes = decltype(tag)::value, kThreads = 64;
    launch("copy_tiles_kernel", copy_tiles_kernel<S, kRows, kColumns, kBytes, kStages, kThreads>,
           (from.rows + kRows - 1) / kRows, kThreads, kStages * sizeof(Tile<S, kRows, kColumns>),
           from, to);
  };
  if (bytes == 16) return run(std::integral_constant<int, 16>());
  if (bytes == 8) return run(std::integral_constant<int, 8>());
  if (bytes == 4) return run(std::integral_constant<int, 4>());
  if constexpr (sizeof(S) == 2) run(std::integral_constant<int, 2>());
}

template <class F>
void visit_storage(int64_t type, F f) {
  if (type == 0) return f(TypeTag<float>());
  if (type == 1) return f(TypeTag<bfloat16>());
  f(TypeTag<float16>());
}

}  // namespace
}  // namespace suffuse

using namespace suffuse;

// op: 0 sum, 1 largest, 2 smallest.
EMULATED void emulated_reduce_rows(const float* x, float* y, int64_t rows, int64_t length,
                                   int64_t op, int64_t blocks, int64_t threads) {
  const auto run = [&](auto kernel) {
    launch("reduce_rows_kernel", kernel, blocks, threads, sizeof(BlockReduce<float>::Shared), x, y,
           static_cast<int>(rows), static_cast<int>(length));
  };
  if (op == 0) return run(reduce_rows_kernel<Sum<float>>);
  if (op == 1) return run(reduce_rows_kernel<Max<float>>);
  run(reduce_rows_kernel<Min<float>>);
}

EMULATED void emulated_reduce_squares(const Square* x, Square* all, Square* groups, int64_t rounds,
                                      int64_t threads) {
  launch("reduce_squares_kernel", reduce_squares_kernel, 1, threads,
         sizeof(BlockReduce<Square>::Shared), x, all, groups, static_cast<int>(rounds));
}

EMULATED void emulated_scan_squares(const Square* x, Square* y, Square* carries, int64_t tiles,
                                    int64_t threads, int64_t items) {
  launch("scan_squares_kernel", items == 1 ? scan_squares_kernel<1> : scan_squares_kernel<3>, 1,
         threads, sizeof(BlockScan<Square, SquareProduct>::Shared), x, y, carries,
         static_cast<int>(tiles));
}

EMULATED int64_t emulated_look_back_workspace(int64_t rows, int64_t chunks) {
  return LookBack<Affine<float>, ComposeAffine<float>>::workspace_bytes(rows, chunks);
}

EMULATED void emulated_look_back(const void* totals, const int32_t* kinds, const int32_t* order,
                                 void* prefixes, void* result, void* workspace, int64_t rows,
                                 int64_t chunks) {
  launch("look_back_kernel", look_back_kernel, rows, 96, 0,
         LookBackParams{static_cast<const Affine<float>*>(totals), kinds, order,
                        static_cast<Affine<float>*>(prefixes), static_cast<Affine<float>*>(result),
                        workspace, static_cast<int>(chunks)});
}

// bytes: of one copy; width: the columns of a tile.
EMULATED void emulated_copy_tiles(int64_t type, const void* from, int64_t from_stride, void* to,
                                  int64_t to_stride, int64_t rows, int64_t columns, int64_t width,
                                  int64_t bytes) {
  visit_storage(type, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const int r = static_cast<int>(rows), c = static_cast<int>(columns);
    const Matrix<const S> source = {static_cast<const S*>(from), from_stride, r, c};
    const Matrix<S> target = {static_cast<S*>(to), to_stride, r, c};
    if (width == 32) return copy_tiles<S, 16, 32, 2>(source, target, bytes);
    copy_tiles<S, 24, 64, 3>(source, target, bytes);
  });
}
