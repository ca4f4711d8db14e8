// Normal numbers from Philox4x32-10 for up to 1024 elements at a time: first all random words into
// L1, then the transform, which together run 1.4 times faster than both in one loop.
#pragma once

#include "math/philox.h"
#include "simd/pairs.h"

namespace suffuse {
namespace SUFFUSE_ISA {

constexpr int kNormalBlock = 1024;  // elements; four to a Philox block

struct PhiloxKeys {
  Int64 round0[PhiloxConstants::rounds], round1[PhiloxConstants::rounds];

  explicit PhiloxKeys(uint64_t seed) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int i = 0; i < PhiloxConstants::rounds; i++) {
      round0[i] = Int64(static_cast<int64_t>(key0));
      round1[i] = Int64(static_cast<int64_t>(key1));
      key0 += PhiloxConstants::weyl0;
      key1 += PhiloxConstants::weyl1;
    }
  }
};

// Words c0 and c2 of the blocks first, first + 1, ... go to radius, words c1 and c3 to angle, in
// order. The words sit in 64-bit lanes whose upper halves hold what the products leave there and
// nobody reads.
SUFFUSE_INLINE void philox_words(const PhiloxKeys& keys, uint64_t offset, uint64_t first, int count,
                                 int64_t* radius, int64_t* angle) {
  constexpr int64_t lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  const Int64 lanes = Int64::load(lane), word(0xffffffff);
  const Int64 multiply0(PhiloxConstants::multiply0), multiply1(PhiloxConstants::multiply1);
  for (int j = 0; j < count; j += Vec<double>::N) {
    Int64 c0 = Int64(static_cast<int64_t>(first + j)) + lanes, c1 = shr<32>(c0);
    Int64 c2(static_cast<int64_t>(offset)), c3(static_cast<int64_t>(offset >> 32));
#pragma GCC unroll 10
    for (int i = 0; i < PhiloxConstants::rounds; i++) {
      const Int64 p0 = multiply_words(c0, multiply0), p1 = multiply_words(c2, multiply1);
      c0 = shr<32>(p1) ^ c1 ^ keys.round0[i];
      c2 = shr<32>(p0) ^ c3 ^ keys.round1[i];
      c1 = p1;
      c3 = p0;
    }
    store_int(radius + j, (c0 & word) | shl<32>(c2));
    store_int(angle + j, (c1 & word) | shl<32>(c3));
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
