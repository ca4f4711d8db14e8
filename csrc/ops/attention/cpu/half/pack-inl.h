// How rows become tiles (product-inl.h), and sums become rows again.
//
// A number that is no bfloat16 is a sum of two, high and low. Its products are high high + high low
// + low high: three along the depth, for which A has the parts kPartsOfA and B kPartsOfB. An
// infinite number takes part in the first one alone, since the low part that it meets may be 0 or
// negative.
#pragma once

#include <cstdint>

#include "ops/attention/cpu/half/product-inl.h"
#include "ops/attention/cpu/pack-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

SUFFUSE_INLINE int64_t tiles_of(int64_t count, int64_t side) { return (count + side - 1) / side; }

enum class Part {
  whole,  // of a bfloat16
  high,
  low,
  finite,  // high, or 0 for an infinite number or NaN
};

constexpr int kMostParts = 3;
constexpr Part kPartsOfA[kMostParts] = {Part::high, Part::low, Part::finite};
constexpr Part kPartsOfB[kMostParts] = {Part::high, Part::finite, Part::low};

SUFFUSE_INLINE int parts_of(DType dtype) { return dtype == DType::bf16 ? 1 : kMostParts; }

// The 32 rows that begin at a key or a query; null past the last one. Of rows of float16, which are
// addressed as if they were bfloat16, one part.
struct Rows32 {
  const bfloat16* row[32];
  DType dtype;
  Part part = Part::whole;

  SUFFUSE_INLINE Words words(int r, int64_t column, int64_t columns) const {
    if (row[r] == nullptr) return Words(0);
    const Words x = load_pairs(row[r] + column, columns - column);
    if (part == Part::whole) return x;
    Vec<float> low = low_half_f16(x), high = high_half_f16(x);
    if (part == Part::finite) low = finite(low), high = finite(high);
    const Words rounded = nearest_pairs(low, high);
    return part == Part::low ? low_part(low, high, rounded) : rounded;
  }
};

// Calls pack(rows, i) for part i of each of `parts`.
template <class Pack>
SUFFUSE_INLINE void for_parts(const Part* parts, Rows32 rows, Pack&& pack) {
  const int count = parts_of(rows.dtype);
  for (int i = 0; i < count; ++i) {
    if (count > 1) rows.part = parts[i];
    pack(rows, i);
  }
}

// Words of lo and hi for one or three tiles, `step` words apart.
SUFFUSE_INLINE void store_parts(uint32_t* to, int64_t step, const Part (&parts)[kMostParts],
                                bool split, Vec<float> lo, Vec<float> hi) {
  const Words high = nearest_pairs(lo, hi);
  store_int(to, high);
  if (!split) return;
  const Words low = low_part(lo, hi, high);
  for (int i = 1; i < kMostParts; ++i) store_int(to + i * step, parts[i] == Part::low ? low : high);
}

// Tiles (i, k) of A at to + (i row + k) tiles: the rows as they are, i < 2.
SUFFUSE_INLINE void pack_rows(uint32_t* to, int64_t row, const Rows32& rows, int64_t columns) {
  for (int64_t c = 0; c < columns; c += kTileDepth) {
    uint32_t* const tile = to + c / kTileDepth * kTileWords;
#pragma GCC unroll 4
    for (int r = 0; r < 32; ++r) {
      uint32_t* const at = tile + r / kTileSide * row * kTileWords + r % kTileSide * kTileSide;
      store_int(at, rows.words(r, c, columns));
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
      half[0][r] = rows.words(2 * r, c, columns);
      half[1][r] = rows.words(2 * r + 1, c, columns);
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
      for (int r = 0; r < 16; ++r) x[r] = rows.words(16 * j + r, c, columns) ^ flip;
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
      Words a = rows.words(r, c, columns), b = rows.words(r + 16, c, columns);
      pair_rows(a, b);
      uint32_t* const at = to + c / kTileSide * kTileWords + r * kTileSide;
      store_int(at, a);
      if (c + kTileSide < columns) store_int(at + kTileWords, b);
    }
}

// Rows q < `rows` of [row][column] from tiles (column, q) of sums, times factor[q]: two tiles of 16
// columns each at a time. A row whose factor is 0 is 0 whatever its sums hold.
SUFFUSE_INLINE void store_transposed(bfloat16* to, DType dtype, int64_t ld, const float* tiles,
                                     int64_t tile_row, int64_t rows, int64_t columns,
                                     Vec<float> factor) {
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
      x[d] = dtype == DType::bf16 ? nearest_pairs(low, high) : nearest_pairs_f16(low, high);
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
