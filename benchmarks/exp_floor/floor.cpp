// The exponentials of a selective scan alone, as its kernel makes them: the scan's floor. Compiled
// per ISA by benchmarks/selective_scan.py.
#include <cstdint>

#include "simd/math.h"

using namespace suffuse::SUFFUSE_ISA;
using F = Vec<float>;

// `count` exponentials 2^(delta a) over the `length` rates a, a multiple of four vectors; their
// sum.
extern "C" __attribute__((visibility("default"))) float exp_floor(const float* a, int64_t length,
                                                                  int64_t count) {
  F sums[4] = {zero<F>(), zero<F>(), zero<F>(), zero<F>()};
  for (int64_t done = 0; done < count; done += length) {
    const F delta(1.f + 1e-9f * static_cast<float>(done));
    for (int64_t i = 0; i < length; i += 4 * F::N) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) sums[k] += exp2_decay(delta, load<F>(a + i + k * F::N));
    }
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}
