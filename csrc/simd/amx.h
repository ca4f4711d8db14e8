// The words of Intel AMX: eight tiles of 16 rows of 64 bytes, and the product of bfloat16 tiles.
//
// clang-format off
// TileState                  while it lives, the calling thread's tiles have 16 whole rows; then it
//                            puts back the configuration that it found (what the tiles held is lost)
// tile_zero<t>()             tile t becomes 0
// tile_load<t>(p, stride)    tile t from rows that begin `stride` bytes apart (64: one after another)
// tile_store<t>(p, stride)   the same back
// tile_product<c, a, b>()    tile c, 16 x 16 float, += a b: row i of a has 16 pairs of bfloat16, row
//                            k of b the pairs that meet pair k; subnormal numbers count as 0
// clang-format on
//
// Written in assembly, because the tile's number is part of the instruction and compilers' own
// words take it as text only. The memory clobbers keep loads and stores of tiles and vectors in
// order.
#pragma once

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

#include <cstdint>

#include "common/macros.h"

namespace suffuse {
namespace SUFFUSE_ISA {

constexpr int64_t kTileRowBytes = 64;

class TileState {
 public:
  SUFFUSE_INLINE TileState() {
    asm volatile("sttilecfg %0" : "=m"(before_));
    Config config{};
    config.palette = 1;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = kTileRowBytes;
      config.rows[i] = 16;
    }
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  SUFFUSE_INLINE ~TileState() {
    if (before_.palette == 0) {
      asm volatile("tilerelease");
    } else {
      asm volatile("ldtilecfg %0" : : "m"(before_));
    }
  }
  TileState(const TileState&) = delete;
  TileState& operator=(const TileState&) = delete;

 private:
  struct alignas(64) Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Config) == 64, "the layout that the processor reads");

  Config before_;
};

template <int t>
SUFFUSE_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(t));
}
template <int t>
SUFFUSE_INLINE void tile_load(const void* p, int64_t stride = kTileRowBytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(t) : "memory");
}
template <int t>
SUFFUSE_INLINE void tile_store(void* p, int64_t stride = kTileRowBytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(t) : "memory");
}
template <int c, int a, int b>
SUFFUSE_INLINE void tile_product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse

#endif
