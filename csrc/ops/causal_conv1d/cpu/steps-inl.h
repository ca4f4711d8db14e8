// What the CPU kernels of causal_conv1d have in common.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/causal_conv1d/cpu/kernel.h"
#include "simd/channel_tile.h"
#include "simd/half_results.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

template <class S>
SUFFUSE_INLINE S* at(const ConvRows& rows, int64_t batch, int64_t channel, int64_t time) {
  return static_cast<S*>(rows.data) + batch * rows.batch + channel * rows.channel +
         time * rows.time;
}

template <class V, class S, class N>
SUFFUSE_INLINE void copy_element(N* to, const S* from) {
  store(to, load<V>(from, 1), 1);
}
template <class V, class S, class N>
SUFFUSE_INLINE void copy_elements(N* to, const S* from, int64_t count) {
  int64_t i = 0;
  for (; i + V::N <= count; i += V::N) store(to + i, load<V>(from + i));
  if (i < count)
    store(to + i, load<V>(from + i, static_cast<int>(count - i)), static_cast<int>(count - i));
}

// How many steps before each of [begin, end) belong to its sequence, up to width - 1; -1 for
// padding. The initial state belongs to the first sequence.
template <class N>
SUFFUSE_INLINE void fill_reach(const CausalConv1dParams& p, int64_t batch, int64_t begin,
                               int64_t end, N* reach) {
  const int32_t* sequence = p.sequence + batch * p.length;
  const int64_t most = p.width - 1;
  int64_t run = most;
  for (int64_t t = begin; t > 0 && begin - t < most; t--) {
    if (sequence[t] != sequence[t - 1]) {
      run = begin - t;
      break;
    }
  }
  for (int64_t t = begin; t < end; t++) {
    if (t > begin) run = sequence[t] != sequence[t - 1] ? 0 : run < most ? run + 1 : most;
    reach[t - begin] = static_cast<N>(sequence[t] < 0 ? -1 : run);
  }
}

// silu of what is stored as S.
template <class S, class V>
SUFFUSE_INLINE V silu_for(V z) {
  if constexpr (sizeof(S) == 2) {
    return silu_near(z);
  } else {
    return silu_fast(z);
  }
}

// The derivative of silu.
template <class V>
SUFFUSE_INLINE V silu_slope(V z) {
  z = max(V(-87), z);
  const V s = sigmoid_fast(z);
  return muladd(z * s, V(1) - s, s);
}

// Calls fn with the width as a compile-time constant where it is a usual one, else with 0.
template <class Fn>
SUFFUSE_INLINE void for_width(int64_t width, Fn fn) {
  if (width == 4) {
    fn(std::integral_constant<int, 4>());
  } else if (width == 3) {
    fn(std::integral_constant<int, 3>());
  } else if (width == 2) {
    fn(std::integral_constant<int, 2>());
  } else {
    fn(std::integral_constant<int, 0>());
  }
}

// Parts of one stretch of the thread's scratch memory, each at a cache line.
template <class N>
class Scratch {
 public:
  explicit Scratch(int64_t most) : next_(static_cast<N*>(causal_conv1d_scratch(most))) {}

  SUFFUSE_INLINE N* take(int64_t count) {
    N* mine = next_;
    next_ += padded(count);
    return mine;
  }
  // Bytes that parts of so many numbers take.
  template <class... Counts>
  static SUFFUSE_INLINE int64_t bytes(Counts... counts) {
    return (padded(counts) + ...) * static_cast<int64_t>(sizeof(N));
  }

 private:
  static SUFFUSE_INLINE int64_t padded(int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(N);
    return (count + kLine - 1) / kLine * kLine;
  }

  N* next_;
};

template <class N>
SUFFUSE_INLINE void zero_all(N* p, int64_t count) {
  __builtin_memset(p, 0, static_cast<size_t>(count) * sizeof(N));
}

}  // namespace causal_conv1d
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
