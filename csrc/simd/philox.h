// Philox4x32-10 on vectors: one block in each 64-bit lane.
#pragma once

#include "math/philox.h"
#include "simd/pairs.h"

namespace suffuse {
namespace SUFFUSE_ISA {

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

// The four words of a block, in the low halves of the lanes. The upper halves of c1 and c3 may hold
// anything before; afterwards those of all do: it is what the products leave there.
struct PhiloxLanes {
  Int64 c0, c1, c2, c3;

  SUFFUSE_INLINE void mix(const PhiloxKeys& keys) {
    const Int64 multiply0(PhiloxConstants::multiply0), multiply1(PhiloxConstants::multiply1);
#pragma GCC unroll 10
    for (int i = 0; i < PhiloxConstants::rounds; i++) {
      const Int64 p0 = multiply_words(c0, multiply0), p1 = multiply_words(c2, multiply1);
      c0 = shr<32>(p1) ^ c1 ^ keys.round0[i];
      c2 = shr<32>(p0) ^ c3 ^ keys.round1[i];
      c1 = p1;
      c3 = p0;
    }
  }
};

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
