// Tiles of channels x steps with the channels on the lanes, from tensors [batch, channel, time] of
// which channels or steps are adjacent.
#pragma once

#include <cstdint>

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {

// The vector and the number of the arithmetic for a storage type.
template <class S>
struct LanesOf {
  using type = Vec<float>;
  using number = float;
};
template <>
struct LanesOf<double> {
  using type = Vec<double>;
  using number = double;
};

// to[t V::N + lane] = from[lane, t] for t < count (whole vectors of steps are written); lanes
// behind the first `channels` are 0.
template <class V, class S, class N>
SUFFUSE_INLINE void load_channel_tile(N* to, const S* from, int64_t channel_stride,
                                      int64_t time_stride, int channels, int count) {
  if (time_stride != 1) {
    for (int t = 0; t < count; t++) {
      const S* row = from + t * time_stride;
      store(to + t * V::N, channels == V::N ? load<V>(row) : load<V>(row, channels));
    }
    return;
  }
  for (int t = 0; t < count; t += V::N) {
    const int steps = V::N < count - t ? V::N : count - t;
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      const S* p = from + i * channel_stride + t;
      row[i] = i >= channels ? zero<V>() : steps == V::N ? load<V>(p) : load<V>(p, steps);
    }
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) store(to + (t + i) * V::N, row[i]);
  }
}

// The opposite. `from` is read in whole vectors of steps.
template <class V, class S, class N>
SUFFUSE_INLINE void store_channel_tile(S* to, const N* from, int64_t channel_stride,
                                       int64_t time_stride, int channels, int count) {
  if (time_stride != 1) {
    for (int t = 0; t < count; t++) {
      const V row = load<V>(from + t * V::N);
      if (channels == V::N) {
        store(to + t * time_stride, row);
      } else {
        store(to + t * time_stride, row, channels);
      }
    }
    return;
  }
  for (int t = 0; t < count; t += V::N) {
    const int steps = V::N < count - t ? V::N : count - t;
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) row[i] = load<V>(from + (t + i) * V::N);
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      if (i >= channels) continue;
      if (steps == V::N) {
        store(to + i * channel_stride + t, row[i]);
      } else {
        store(to + i * channel_stride + t, row[i], steps);
      }
    }
  }
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
