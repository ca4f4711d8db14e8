// The window that slides over time: width - 1 steps that were, and a tile of new ones.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/causal_conv1d/params.h"
#include "simd/channel_tile.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

constexpr int kTile = 16;

struct Lanes {
  int64_t batch, channel;
  int count;
};

template <class S>
SUFFUSE_INLINE S* at(const ConvRows& rows, const Lanes& lanes, int64_t time) {
  return static_cast<S*>(rows.data) + lanes.batch * rows.batch + lanes.channel * rows.channel +
         time * rows.time;
}

template <class V, class S, class N>
SUFFUSE_INLINE void load_steps(N* to, const ConvRows& rows, const Lanes& lanes, int64_t time,
                               int count) {
  load_channel_tile<V>(to, at<const S>(rows, lanes, time), rows.channel, rows.time, lanes.count,
                       count);
}

template <class V, class S, class N>
SUFFUSE_INLINE void store_steps(const ConvRows& rows, const Lanes& lanes, int64_t time, int count,
                                const N* from) {
  store_channel_tile<V>(at<S>(rows, lanes, time), from, rows.channel, rows.time, lanes.count,
                        count);
}

// Steps [time, time + count) of the initial state (negative times) and x, in that order.
template <class V, class S, class N>
SUFFUSE_INLINE void load_before(N* to, const CausalConv1dParams& p, const Lanes& lanes,
                                int64_t time, int count) {
  const int old = time < 0 ? static_cast<int>(-time < count ? -time : count) : 0;
  if (old > 0 && p.initial.data) {
    load_steps<V, S>(to, p.initial, lanes, time + p.width - 1, old);
  } else {
    for (int i = 0; i < old; i++) store(to + i * V::N, zero<V>());
  }
  if (count > old) load_steps<V, S>(to + old * V::N, p.x, lanes, time + old, count - old);
}

// [width][lanes] of the weights.
template <class V, class N>
SUFFUSE_INLINE void load_weights(N* to, const CausalConv1dParams& p, const Lanes& lanes) {
  const N* from = static_cast<const N*>(p.weight) + lanes.channel * p.width;
  for (int64_t k = 0; k < p.width; k++) {
    for (int i = 0; i < V::N; i++) {
      to[k * V::N + i] = i < lanes.count ? from[i * p.width + k] : N(0);
    }
  }
}

// How many steps before the current one belong to its sequence, up to width - 1.
class Run {
 public:
  SUFFUSE_INLINE Run(const CausalConv1dParams& p, int64_t batch, int64_t time)
      : sequence_(p.sequence ? p.sequence + batch * p.length : nullptr), most_(p.width - 1) {
    length_ = most_;
    if (!sequence_ || time == 0) return;
    const int64_t first = time - 1;
    int64_t t = first;
    while (t > 0 && first - t < most_ && sequence_[t - 1] == sequence_[first]) t--;
    length_ = t == 0 ? most_ : first - t;
  }

  // Moves on to `time`. The initial state belongs to the first sequence.
  SUFFUSE_INLINE void step(int64_t time) {
    if (!sequence_ || time == 0) return;
    length_ = sequence_[time] != sequence_[time - 1] ? 0 : length_ < most_ ? length_ + 1 : most_;
  }

  // The first tap that counts; width where the step is padding.
  SUFFUSE_INLINE int64_t first_tap(int64_t time) const {
    return sequence_ && sequence_[time] < 0 ? most_ + 1 : most_ - length_;
  }

 private:
  const int32_t* sequence_;
  int64_t most_, length_;
};

// bias + sum of the taps from `first` on of the window that starts at x. kWidth: the width, or 0
// where it is known at run time alone.
template <int kWidth, class V, class N>
SUFFUSE_INLINE V convolve(const N* weight, const N* x, V bias, int64_t width, int64_t first) {
  V sum = bias;
  if (kWidth > 0 && first == 0) {
#pragma GCC unroll 4
    for (int k = 0; k < kWidth; k++) {
      sum = muladd(load<V>(weight + k * V::N), load<V>(x + k * V::N), sum);
    }
    return sum;
  }
  for (int64_t k = first; k < width; k++) {
    sum = muladd(load<V>(weight + k * V::N), load<V>(x + k * V::N), sum);
  }
  return sum;
}

// Calls fn with the width as a compile-time constant where it is a usual one.
template <class Fn>
SUFFUSE_INLINE void for_width(int64_t width, Fn fn) {
  if (width == 4) {
    fn(std::integral_constant<int, 4>());
  } else if (width == 3) {
    fn(std::integral_constant<int, 3>());
  } else {
    fn(std::integral_constant<int, 0>());
  }
}

// Calls fn(lanes) for each V::N channels of block `block`.
template <class V, class Fn>
SUFFUSE_INLINE void for_lanes(const CausalConv1dParams& p, int64_t batch, int64_t block, Fn fn) {
  const int64_t first = block * kConvLanes;
  const int64_t end = first + kConvLanes < p.channels ? first + kConvLanes : p.channels;
  for (int64_t c = first; c < end; c += V::N) {
    fn(Lanes{batch, c, static_cast<int>(end - c < V::N ? end - c : V::N)});
  }
}

}  // namespace causal_conv1d
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
