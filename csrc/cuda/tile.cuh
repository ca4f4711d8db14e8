// Tiles of a matrix in shared memory, loaded by copies that run on their own and stored in vectors.
// They are row-major; the 16-byte chunks of a row change places within it so that what a warp
// touches at once lies in different banks.
#pragma once

#include <type_traits>

#include "cuda/vocab.cuh"

namespace suffuse {

// A row-major matrix in global memory; elements of a row follow each other.
template <class S>
struct Matrix {
  S* data;
  int64_t stride;  // between rows, in elements
  int rows, columns;
};

// The largest copy, 16, 8, 4 or sizeof(S) bytes, that row starts and lengths are multiples of.
template <class S>
SUFFUSE_HD int copy_bytes(const Matrix<S>& matrix) {
  const uint64_t all = reinterpret_cast<uintptr_t>(matrix.data) | 16 |
                       static_cast<uint64_t>(matrix.stride) * sizeof(S) |
                       static_cast<uint64_t>(matrix.columns) * sizeof(S);
  return static_cast<int>(all & (~all + 1));
}

// What is touched at once.
enum class TileOrder {
  rows,     // 8 rows of a chunk, by load_matrix: operands, and results of 16-bit elements
  columns,  // 4 rows of two chunks, element by element: 32-bit elements across the rows
};

template <class Element, int kRows_, int kColumns_, TileOrder kOrder = TileOrder::rows>
struct Tile {
  using S = Element;
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kPerChunk = 16 / sizeof(S), kChunks = kColumns / kPerChunk;
  static_assert(kColumns % kPerChunk == 0 && kChunks % 2 == 0);
  static_assert(kOrder == TileOrder::rows || kChunks % 8 == 0);

  alignas(128) S data[kRows * kColumns];

  // Chunks change places in groups of kMask + 1, which divide the row. Rows are then kMask + 1
  // chunks apart or an odd multiple of it: kLines of them fill all banks, 128 bytes.
  static constexpr uint32_t kMask = kChunks % 8 == 0 ? 7 : kChunks % 4 == 0 ? 3 : 1;
  static constexpr uint32_t kLines = 8 / (kMask + 1);

  SUFFUSE_DEVICE static uint32_t offset(uint32_t row, uint32_t column) {
    const uint32_t key = kOrder == TileOrder::rows ? row / kLines : 2 * row;
    const uint32_t chunk = column / kPerChunk ^ (key & kMask);
    return row * kColumns + chunk * kPerChunk + column % kPerChunk;
  }
  // offset(row + rows, column + columns) from that of (row, column), in fewer instructions: rows is
  // a multiple of 8, columns of a chunk, and the numbers of the two chunks have no bit in common.
  SUFFUSE_DEVICE static uint32_t moved(uint32_t offset, uint32_t rows, uint32_t columns) {
    const uint32_t chunks = columns / kPerChunk;
    return (offset ^ (chunks & kMask) * kPerChunk) + (chunks & ~kMask) * kPerChunk +
           rows * kColumns;
  }
  SUFFUSE_DEVICE S* at(int row, int column) { return data + offset(row, column); }
  SUFFUSE_DEVICE const S* at(int row, int column) const { return data + offset(row, column); }
};

template <int kBytes>
using VectorOf =
    std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, uint32_t>>;

// Calls f(row, column) for the thread's share of a tile, kWidth elements each: neighbouring threads
// get neighbouring ones.
template <class Tile, int kThreads, int kWidth, class F>
SUFFUSE_DEVICE void for_tile(F f) {
  constexpr uint32_t kPerRow = Tile::kColumns / kWidth, kCount = Tile::kRows * kPerRow;
#pragma unroll 4  // more at once would need more registers than a thread has
  for (uint32_t first = 0; first < kCount; first += kThreads) {
    const uint32_t i = first + threadIdx.x;
    if (kCount % kThreads == 0 || i < kCount) {
      f(static_cast<int>(i / kPerRow), static_cast<int>(i % kPerRow * kWidth));
    }
  }
}

// Starts to fill the tile with the part of the matrix from (row, column) on, and with zeros beyond
// the matrix. By kThreads threads, in copies of kBytes, which divides copy_bytes; copies of 2 bytes
// are finished at once. The caller commits and waits.
template <int kBytes, int kThreads, class Tile>
SUFFUSE_DEVICE void load_tile(Tile& tile, const Matrix<const typename Tile::S>& matrix, int row,
                              int column) {
  using S = typename Tile::S;
  for_tile<Tile, kThreads, kBytes / sizeof(S)>([&](int r, int c) {
    const bool inside = row + r < matrix.rows && column + c < matrix.columns;
    const S* source = matrix.data + (row + r) * matrix.stride + column + c;
    if constexpr (kBytes >= 4) {
      gpu::copy_async<kBytes>(tile.at(r, c), source, inside);
    } else {
      S value{};
      if (inside) value = *source;
      *tile.at(r, c) = value;
    }
  });
}

// Writes the part of the tile that lies in the matrix, from (row, column) on.
template <int kBytes, int kThreads, class Tile>
SUFFUSE_DEVICE void store_tile(const Tile& tile, const Matrix<typename Tile::S>& matrix, int row,
                               int column) {
  using S = typename Tile::S;
  for_tile<Tile, kThreads, kBytes / sizeof(S)>([&](int r, int c) {
    if (row + r >= matrix.rows || column + c >= matrix.columns) return;
    S* target = matrix.data + (row + r) * matrix.stride + column + c;
    if constexpr (kBytes >= 4) {
      gpu::store_vector(target, gpu::load_vector<VectorOf<kBytes>>(tile.at(r, c)));
    } else {
      *target = *tile.at(r, c);
    }
  });
}

}  // namespace suffuse
