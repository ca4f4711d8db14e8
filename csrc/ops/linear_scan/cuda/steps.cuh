// Steps of the recurrence in a row, as a value that scans compose.
#pragma once

#include <type_traits>

#include "cuda/vocab.cuh"
#include "ops/linear_scan/cuda/number.h"

namespace suffuse {

// state -> a state + x; x alone if a sequence starts within the steps, so that nothing, not even a
// NaN, goes from one sequence to the next.
template <class T>
struct LinearSteps {
  using Flag = std::conditional_t<alignof(T) == 8, uint64_t, uint32_t>;  // leaves no padding
  T a, x;
  Flag restarts;
};

template <class T>
SUFFUSE_DEVICE T apply(const LinearSteps<T>& steps, T state) {
  return steps.restarts ? steps.x : advance(steps.a, state, steps.x);
}

template <class T>
struct ComposeLinearSteps {
  SUFFUSE_DEVICE static LinearSteps<T> identity() { return {one<T>(), T{}, 0}; }
  SUFFUSE_DEVICE LinearSteps<T> operator()(const LinearSteps<T>& first,
                                           const LinearSteps<T>& second) const {
    return {multiply(first.a, second.a), apply(second, first.x), first.restarts | second.restarts};
  }
};

// The steps of one thread.
template <class T, int kItems>
struct LinearItems {
  T a[kItems], x[kItems];
  uint32_t restarts;  // bit i: a sequence starts with step i

  // Takes step i; returns h. lagged: the state is a h, and goes into h as it is.
  SUFFUSE_DEVICE T take(int i, bool lagged, T& state) const {
    if (restarts >> i & 1) state = T{};
    const T h = lagged ? add(state, x[i]) : advance(a[i], state, x[i]);
    state = lagged ? multiply(a[i], h) : h;
    return h;
  }

  SUFFUSE_DEVICE LinearSteps<T> all(bool lagged) const {
    T product = one<T>(), state = {};
#pragma unroll
    for (int i = 0; i < kItems; i++) {
      take(i, lagged, state);
      product = multiply(product, a[i]);
    }
    return {product, state, restarts != 0};
  }
};

}  // namespace suffuse
