// Squares of channels x steps that are transposed in registers: V::N channels of adjacent steps,
// or of adjacent words of V's width, whole lines at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "simd/channel_tile.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

// r[i] lane j = tile[j V::N + i]. The tile has just been written, to the first cache.
template <class V, class N>
SUFFUSE_INLINE void load_transposed(V (&r)[V::N], const N* tile) {
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) r[i] = load<V>(tile + i * V::N);
  transpose(r);
}

// Steps of a square: two bfloat16 are a word.
template <class V, class S>
constexpr int kSquareSteps = std::is_same<S, bfloat16>::value ? 2 * V::N : V::N;

// to[t V::N + lane] = from[lane, t]
template <class V, class S, class N>
SUFFUSE_INLINE void load_square(N* to, const S* from, int64_t channel_stride) {
  V row[V::N];
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) row[i] = load<V>(from + i * channel_stride);
  transpose(row);
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) store(to + i * V::N, row[i]);
}
template <class V>
SUFFUSE_INLINE void load_square(float* to, const bfloat16* from, int64_t channel_stride) {
  V words[V::N];
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    words[i] = load<V>(reinterpret_cast<const float*>(from + i * channel_stride));
  }
  transpose(words);
  const Int<V> high(static_cast<int32_t>(0xffff0000));
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    store(to + 2 * i * V::N, from_bits<V>(shl<16>(bits(words[i]))));
    store(to + (2 * i + 1) * V::N, from_bits<V>(bits(words[i]) & high));
  }
}

// The opposite. Of results of arithmetic, which are not subnormal, pack_bf16 gives store's bits.
template <class V, class S, class N>
SUFFUSE_INLINE void store_square(S* to, const N* from, int64_t channel_stride) {
  V row[V::N];
  load_transposed(row, from);
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) store(to + i * channel_stride, row[i]);
}
template <class V>
SUFFUSE_INLINE void store_square(bfloat16* to, const float* from, int64_t channel_stride) {
  alignas(64) float words[V::N * V::N];
  V row[V::N];
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    const V even = load<V>(from + 2 * i * V::N), odd = load<V>(from + (2 * i + 1) * V::N);
    store(words + i * V::N, from_bits<V>(pack_bf16(even, odd)));
  }
  load_transposed(row, words);
#pragma GCC unroll 16
  for (int i = 0; i < V::N; i++) {
    store(reinterpret_cast<float*>(to + i * channel_stride), row[i]);
  }
}

}  // namespace linear_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
