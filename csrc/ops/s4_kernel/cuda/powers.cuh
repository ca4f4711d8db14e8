// Powers of a few terms in shared memory, as products of powers of the digits of l.
#pragma once

#include "ops/s4_kernel/cuda/config.h"
#include "ops/s4_kernel/cuda/power.cuh"

namespace suffuse {

// e^(x l) for l = i, 8 i, 64 i and begin + 512 i, i < 8: a digit each of l = column + 64 row,
// base 8. One place more than there are terms, so that digits lie in different banks.
template <class T>
struct S4Digits {
  S4Complex<T> power[4][8][kS4Terms + 1];

  SUFFUSE_DEVICE S4Complex<T> column(int j, int term) const {
    const S4Complex<T> low = power[0][j % 8][term], high = power[1][j / 8][term];
    return low * high;
  }
  SUFFUSE_DEVICE S4Complex<T> row(int k, int term) const {
    const S4Complex<T> low = power[2][k % 8][term], high = power[3][k / 8][term];
    return low * high;
  }
};

// Fills them for the terms x[0 .. terms); the others' are 0. The last place has kLast digits, times
// factor(term).
template <int kLast, class T, class Factor>
SUFFUSE_DEVICE void fill_digits(S4Digits<T>& digits, const S4Complex<T>* x, int terms,
                                int64_t begin, Factor factor) {
  for (int i = threadIdx.x; i < (3 * 8 + kLast) * kS4Terms; i += kS4Threads) {
    const int term = i % kS4Terms, digit = i / kS4Terms % 8, place = i / (8 * kS4Terms);
    S4Complex<T> value = {};
    if (term < terms) {
      const int64_t l = (static_cast<int64_t>(digit) << (3 * place)) + (place == 3 ? begin : 0);
      const S4Complex<T> logarithm = x[term];
      value = power(logarithm, l);
      if (place == 3) value = value * factor(term);
    }
    digits.power[place][digit][term] = value;
  }
}

}  // namespace suffuse
