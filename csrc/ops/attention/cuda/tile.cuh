// Tiles of queries, keys and values in shared memory, and their products on the tensor cores.
#pragma once

#include "cuda/fragment.cuh"
#include "cuda/tile.cuh"

namespace suffuse {

// Fragments as they lie in memory: floats are not yet rounded.

// A: queries from row m and column k on.
template <class Tile>
SUFFUSE_DEVICE void load_queries(uint32_t (&a)[4], const Tile& tile, int m, int k) {
  const int lane = gpu::lane();
  const uint32_t first = Tile::offset(lane & 15, (lane >> 4) * Tile::kPerChunk);
  gpu::load_matrix_x4(a, tile.data + Tile::moved(first, m, k));
}

// B of q k^T: columns from k on of the keys from n and n + 8 on.
template <class Tile>
SUFFUSE_DEVICE void load_keys(uint32_t (&b)[2][2], const Tile& tile, int k, int n) {
  const int lane = gpu::lane();
  const uint32_t first =
      Tile::offset((lane & 7) + (lane >> 4) * 8, (lane >> 3 & 1) * Tile::kPerChunk);
  uint32_t r[4];
  gpu::load_matrix_x4(r, tile.data + Tile::moved(first, n, k));
#pragma unroll
  for (int i = 0; i < 4; i++) b[i >> 1][i & 1] = r[i];
}

// B of p v: the values of the keys from k on, columns from n and n + 8 on. Of floats, rows t and
// t + 4 of the operand are the keys 2 t and 2 t + 1, as in weights_of.
template <class Tile>
SUFFUSE_DEVICE void load_values(uint32_t (&b)[2][2], const Tile& tile, int k, int n) {
  const int lane = gpu::lane();
  if constexpr (sizeof(typename Tile::S) == 2) {
    const uint32_t first = Tile::offset(lane & 15, (lane >> 4) * Tile::kPerChunk);
    uint32_t r[4];
    gpu::load_matrix_x4_transposed(r, tile.data + Tile::moved(first, k, n));
#pragma unroll
    for (int i = 0; i < 4; i++) b[i >> 1][i & 1] = r[i];
  } else {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint32_t first = Tile::offset(2 * t + (i & 1), g);
      b[i >> 1][i & 1] =
          gpu::load_vector<uint32_t>(tile.data + Tile::moved(first, k, n + (i >> 1) * 8));
    }
  }
}

// A of p v from results of q k^T, p[i] those of the keys 8 i .. 8 i + 7: each step has kMmaDepth
// keys.
template <class S, int kCount>
SUFFUSE_DEVICE void weights_of(uint32_t (&a)[kCount * 8 / kMmaDepth<S>][4],
                               const float (&p)[kCount][4]) {
#pragma unroll
  for (int k = 0; k < kCount * 8 / kMmaDepth<S>; k++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (sizeof(S) == 2) {
        const float* pair = &p[2 * k + (i >> 1)][(i & 1) * 2];
        a[k][i] = gpu::pack<S>(pair[0], pair[1]);
      } else {
        a[k][i] = __float_as_uint(p[k][(i & 1) * 2 + (i >> 1)]);
      }
    }
  }
}

// x = high + low, both of tf32; what is left out is below 2^-22 of x.
SUFFUSE_DEVICE void split_tf32(uint32_t x, uint32_t& high, uint32_t& low) {
  high = gpu::to_tf32(__uint_as_float(x));
  low = gpu::to_tf32(__uint_as_float(x) - __uint_as_float(high));
}

// d += a b, 16 x 8, of fragments as above. Floats: kTf32 rounds them; else the product is made of
// the three of their parts that count, with an error like that of float. (An infinite float then
// gives NaN.)
template <class S, bool kTf32>
SUFFUSE_DEVICE void multiply_raw(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (sizeof(S) == 2) {
    gpu::mma_m16n8k16<S>(d, a, b);
  } else {
    uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
#pragma unroll
    for (int i = 0; i < 4; i++) split_tf32(a[i], a_high[i], a_low[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) split_tf32(b[i], b_high[i], b_low[i]);
    if constexpr (!kTf32) {
      gpu::mma_m16n8k8_tf32(d, a_low, b_high);
      gpu::mma_m16n8k8_tf32(d, a_high, b_low);
    }
    gpu::mma_m16n8k8_tf32(d, a_high, b_high);
  }
}

}  // namespace suffuse
