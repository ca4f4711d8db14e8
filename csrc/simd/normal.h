// Normal numbers from Philox4x32-10 for up to 1024 elements at a time: first all random words into
// L1, then the transform, which together run 1.4 times faster than both in one loop.
#pragma once

#include "simd/philox.h"

namespace suffuse {
namespace SUFFUSE_ISA {

constexpr int kNormalBlock = 1024;  // elements; four to a Philox block

// Words c0 and c2 of the blocks first, first + 1, ... go to radius, words c1 and c3 to angle, in
// order. The words sit in 64-bit lanes whose upper halves hold what the products leave there and
// nobody reads.
SUFFUSE_INLINE void philox_words(const PhiloxKeys& keys, uint64_t offset, uint64_t first, int count,
                                 int64_t* radius, int64_t* angle) {
  constexpr int64_t lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  const Int64 lanes = Int64::load(lane), word(0xffffffff);
  for (int j = 0; j < count; j += Vec<double>::N) {
    const Int64 block = Int64(static_cast<int64_t>(first + j)) + lanes;
    PhiloxLanes x{block, shr<32>(block), Int64(static_cast<int64_t>(offset)),
                  Int64(static_cast<int64_t>(offset >> 32))};
    x.mix(keys);
    store_int(radius + j, (x.c0 & word) | shl<32>(x.c2));
    store_int(angle + j, (x.c1 & word) | shl<32>(x.c3));
  }
}

// out[4 j ... 4 j + 3] = the numbers of block first + j, for j < count <= 256. Writes up to 8
// blocks more, within 256.
inline void philox_normals(const PhiloxKeys& keys, uint64_t offset, uint64_t first, int count,
                           float* out) {
  using F = Vec<float>;
  alignas(64) int64_t radius[kNormalBlock / 4], angle[kNormalBlock / 4];
  philox_words(keys, offset, first, count, radius, angle);
  for (int j = 0; j < count; j += F::N / 2) {
    int32_t words[2][F::N];
    __builtin_memcpy(words[0], radius + j, sizeof words[0]);
    __builtin_memcpy(words[1], angle + j, sizeof words[1]);
    F cosine, sine;
    box_muller(load_int<F>(words[0]), load_int<F>(words[1]), cosine, sine);
    interleave(cosine, sine);
    store(out + 4 * j, cosine);
    store(out + 4 * j + F::N, sine);
  }
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
