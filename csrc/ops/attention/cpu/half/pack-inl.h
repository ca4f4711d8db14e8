// How bfloat16 rows become tiles (product-inl.h), and sums become rows again.
#pragma once

#include <cstdint>

#include "ops/attention/cpu/half/product-inl.h"
#include "ops/attention/cpu/pack-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

SUFFUSE_INLINE int64_t tiles_of(int64_t count, int64_t side) { return (count + side - 1) / side; }

// A row of bfloat16 numbers, or none.
SUFFUSE_INLINE Words row_words(const bfloat16* row, int64_t column, int64_t columns) {
  return row == nullptr ? Words(0) : load_pairs(row + column, columns - column);
}

// The 32 rows that begin at a key or a query; null past the last one.
struct Rows32 {
  const bfloat16* row[32];
};

// Tiles (i, k) of A at to + (i row + k) tiles: the rows as they are, i < 2.
SUFFUSE_INLINE void pack_rows(uint32_t* to, int64_t row, const Rows32& rows, int64_t columns) {
  for (int64_t c = 0; c < columns; c += kTileDepth) {
    uint32_t* const tile = to + c / kTileDepth * kTileWords;
#pragma GCC unroll 4
    for (int r = 0; r < 32; ++r) {
      uint32_t* const at = tile + r / kTileSide * row * kTileWords + r % kTileSide * kTileSide;
      store_int(at, row_words(rows.row[r], c, columns));
    }
  }
}

// Tiles of A of the transpose: tile i at to + i tiles has the columns [16 i, 16 i + 16) as its
// rows, and the 32 rows as its depth.
SUFFUSE_INLINE void pack_columns(uint32_t* to, const Rows32& rows, int64_t columns) {
  for (int64_t c = 0; c < columns; c += 32) {
    Words half[2][16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      half[0][r] = row_words(rows.row[2 * r], c, columns);
      half[1][r] = row_words(rows.row[2 * r + 1], c, columns);
      zip_rows(half[0][r], half[1][r]);
    }
    for (int h = 0; h < 2; ++h) {
      transpose_words(half[h]);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        const int64_t column = c + zip_column(h, i), tile = column / kTileSide;
        if (tile * kTileSide >= columns) continue;
        store_int(to + tile * kTileWords + column % kTileSide * kTileSide, half[h][i]);
      }
    }
  }
}

// Tiles (k, j) of B of the transpose, at to + (2 k + j) tiles: column j of the product is row j,
// the depth runs along the rows. `flip` is xored into every word.
SUFFUSE_INLINE void pack_transposed_rows(uint32_t* to, const Rows32& rows, int64_t columns,
                                         Words flip) {
  for (int64_t c = 0; c < columns; c += kTileDepth)
    for (int j = 0; j < 2; ++j) {
      Words x[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) x[r] = row_words(rows.row[16 * j + r], c, columns) ^ flip;
      transpose_words(x);
      uint32_t* const tile = to + (c / kTileDepth * 2 + j) * kTileWords;
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) store_int(tile + r * kTileSide, x[r]);
    }
}

// Tiles j of B at to + j tiles: the rows as depth, those of r and r + 16 in one word, as
// nearest_pairs puts two vectors of queries; the columns as they are.
SUFFUSE_INLINE void pack_depth(uint32_t* to, const Rows32& rows, int64_t columns) {
  for (int64_t c = 0; c < columns; c += 32)
    for (int r = 0; r < 16; ++r) {
      Words a = row_words(rows.row[r], c, columns), b = row_words(rows.row[r + 16], c, columns);
      pair_rows(a, b);
      uint32_t* const at = to + c / kTileSide * kTileWords + r * kTileSide;
      store_int(at, a);
      if (c + kTileSide < columns) store_int(at + kTileWords, b);
    }
}

// Rows q < `rows` of [row][column] from tiles (column, q) of sums, times factor[q]: two tiles of 16
// columns each at a time. A row whose factor is 0 is 0 whatever its sums hold.
SUFFUSE_INLINE void store_transposed(bfloat16* to, int64_t ld, const float* tiles, int64_t tile_row,
                                     int64_t rows, int64_t columns, Vec<float> factor) {
  using V = Vec<float>;
  const Mask<V> none = factor == V(0);
  for (int64_t c = 0; c < columns; c += 32) {
    Words x[16];
#pragma GCC unroll 16
    for (int d = 0; d < 16; ++d) {
      const float* const from = tiles + (c / 16 + d / 8) * tile_row + d % 8 * 32;
      const bool inside = c + d / 8 * 16 < columns;
      const V low = inside ? select(none, V(0), load<V>(from) * factor) : V(0);
      const V high = inside ? select(none, V(0), load<V>(from + 16) * factor) : V(0);
      x[d] = nearest_pairs(low, high);
    }
    transpose_words(x);
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r)
      if (r < rows) store_pairs(to + r * ld + c, x[r], columns - c);
  }
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
