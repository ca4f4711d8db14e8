// The product of bfloat16 tiles that both passes are made of: by AMX, or by vdpbf16ps where there
// is none. Everything else is the same source for both.
//
// An operand is cut into tiles of 16 rows of 16 words (1 KiB, contiguous); a word is a pair of
// bfloat16. Row i of a tile of A holds 32 numbers along the depth; row k of a tile of B holds, for
// 16 columns, the two numbers at the depths 2 k and 2 k + 1.
#pragma once

#include <cstdint>

#include "simd/amx.h"
#include "simd/bf16_words.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

constexpr int kTileWords = 256;  // and floats of a tile of sums
constexpr int kTileSide = 16;    // rows; columns of sums
constexpr int kTileDepth = 32;

// Where the tiles are: A(i, k) at a + (i a_row + k a_step) tiles, B(k, j) at b + (k b_step + j)
// tiles, sums (i, j) at c + i c_row + j c_column in rows of c_stride floats.
struct TileAddresses {
  const uint32_t *a, *b;
  int64_t a_row, a_step, b_step;
  float* c;
  int64_t c_row, c_column, c_stride;
};

// What else is to be done while the products run: step() follows every one of them.
struct NothingElse {
  SUFFUSE_INLINE void step() {}
};

#if defined(__AMX_BF16__)

class TileProduct {
 public:
  // Sums (i, j) = or += (`add`) A(i, .) B(., j) for i < R, j < C and `depth` tiles.
  template <int R, int C, bool add, class Else>
  SUFFUSE_INLINE void multiply(const TileAddresses& t, int64_t depth, Else& other) const {
    static_assert((R == 1 || R == 2) && (C == 1 || C == 2), "as many sums as there are tiles");
    begin<0, add>(t, 0, 0);
    if constexpr (C == 2) begin<1, add>(t, 0, 1);
    if constexpr (R == 2) begin<2, add>(t, 1, 0);
    if constexpr (R == 2 && C == 2) begin<3, add>(t, 1, 1);
    for (int64_t k = 0; k < depth; ++k) {
      const uint32_t* const a = t.a + k * t.a_step * kTileWords;
      const uint32_t* const b = t.b + k * t.b_step * kTileWords;
      tile_load<4>(a);
      tile_load<6>(b);
      product<0, 4, 6>(other);
      if constexpr (C == 2) {
        tile_load<7>(b + kTileWords);
        product<1, 4, 7>(other);
      }
      if constexpr (R == 2) {
        tile_load<5>(a + t.a_row * kTileWords);
        product<2, 5, 6>(other);
      }
      if constexpr (R == 2 && C == 2) product<3, 5, 7>(other);
    }
    tile_store<0>(sums(t, 0, 0), t.c_stride * 4);
    if constexpr (C == 2) tile_store<1>(sums(t, 0, 1), t.c_stride * 4);
    if constexpr (R == 2) tile_store<2>(sums(t, 1, 0), t.c_stride * 4);
    if constexpr (R == 2 && C == 2) tile_store<3>(sums(t, 1, 1), t.c_stride * 4);
  }

 private:
  static SUFFUSE_INLINE float* sums(const TileAddresses& t, int64_t i, int64_t j) {
    return t.c + i * t.c_row + j * t.c_column;
  }
  template <int tile, bool add>
  static SUFFUSE_INLINE void begin(const TileAddresses& t, int64_t i, int64_t j) {
    if constexpr (add) {
      tile_load<tile>(sums(t, i, j), t.c_stride * 4);
    } else {
      tile_zero<tile>();
    }
  }
  template <int c, int a, int b, class Else>
  static SUFFUSE_INLINE void product(Else& other) {
    tile_product<c, a, b>();
    other.step();
  }

  TileState state_;
};

#else

class TileProduct {
 public:
  template <int R, int C, bool add, class Else>
  SUFFUSE_INLINE void multiply(const TileAddresses& t, int64_t depth, Else& other) const {
    for (int64_t row = 0; row < R * kTileSide; row += kRows) {
      rows<C, add>(t, depth, row / kTileSide, row % kTileSide);
      for (int64_t k = 0; k < depth * C; k += 2) other.step();
    }
  }

 private:
  static constexpr int kRows = 8;  // by two vectors: as many sums as cover the latency

  template <int C, bool add>
  static SUFFUSE_INLINE void rows(const TileAddresses& t, int64_t depth, int64_t i, int64_t row) {
    using V = Vec<float>;
    V sum[kRows][C];
    float* const c = t.c + i * t.c_row + row * t.c_stride;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j)
        sum[r][j] = add ? load<V>(c + r * t.c_stride + j * t.c_column) : zero<V>();
    for (int64_t k = 0; k < depth; ++k) {
      const uint32_t* const a = t.a + (i * t.a_row + k * t.a_step) * kTileWords + row * kTileSide;
      const uint32_t* const b = t.b + k * t.b_step * kTileWords;
      for (int w = 0; w < kTileSide; ++w) {
        Words column[C];
#pragma GCC unroll 2
        for (int j = 0; j < C; ++j) column[j] = load_int<V>(b + j * kTileWords + w * kTileSide);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Words x(static_cast<int32_t>(a[r * kTileSide + w]));
#pragma GCC unroll 2
          for (int j = 0; j < C; ++j) sum[r][j] = dot_bf16(sum[r][j], x, column[j]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j) store(c + r * t.c_stride + j * t.c_column, sum[r][j]);
  }
};

#endif

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
