// causal_conv1d_update: channels on the lanes, the state and the new steps behind each other.
#include "ops/causal_conv1d/cpu/kernel.h"
#include "ops/causal_conv1d/cpu/steps-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

// Channels [channel, channel + count) of batch entry `batch`.
struct UpdateLanes {
  int64_t batch, channel, slot;
  int count;
};

template <class V, class S, class N>
SUFFUSE_INLINE void load_steps(N* to, const ConvRows& rows, int64_t batch, const UpdateLanes& lanes,
                               int64_t time, int64_t count) {
  load_channel_tile<V>(to, at<const S>(rows, batch, lanes.channel, time), rows.channel, rows.time,
                       lanes.count, static_cast<int>(count));
}
template <class V, class S, class N>
SUFFUSE_INLINE void store_steps(const ConvRows& rows, int64_t batch, const UpdateLanes& lanes,
                                int64_t time, int64_t count, const N* from) {
  store_channel_tile<V>(at<S>(rows, batch, lanes.channel, time), from, rows.channel, rows.time,
                        lanes.count, static_cast<int>(count));
}

// Calls fn(place, offset, count) for the one or two runs of places that `count` steps have in a
// ring, from place `start` on.
template <class Fn>
SUFFUSE_INLINE void for_ring(int64_t start, int64_t count, int64_t length, Fn fn) {
  const int64_t straight = count < length - start ? count : length - start;
  fn(start, 0, straight);
  if (count > straight) fn(0, straight, count - straight);
}

template <class V, class N>
SUFFUSE_INLINE V convolve_step(const CausalConv1dUpdateParams& p, const N* weight, V bias,
                               const N* window) {
  V sum = bias;
  for (int64_t k = 0; k < p.width; k++) {
    sum = muladd(load<V>(weight + k * V::N), load<V>(window + k * V::N), sum);
  }
  return p.silu ? silu_fast(sum) : sum;
}

template <class V, class S, class N>
void update_lanes(const CausalConv1dUpdateParams& p, const UpdateLanes& lanes) {
  const bool ring = p.positions;
  const int64_t past = p.width - 1, before = ring ? past : p.state_length;
  // Transposed tiles are written in whole vectors of steps.
  const int64_t window_count = (before + p.length + V::N) * V::N, taps = (p.width + V::N) * V::N;
  const int64_t out_count = (p.length + V::N) * V::N;
  Scratch<N> scratch(Scratch<N>::bytes(window_count, taps, out_count));
  N *window = scratch.take(window_count), *weight = scratch.take(taps);
  N *out = scratch.take(out_count), *x = window + before * V::N;

  // load
  int64_t start = 0;
  if (ring && p.state_length > 0) {
    start = p.positions[lanes.batch] % p.state_length;
    if (start < 0) start += p.state_length;
    const int64_t oldest = start >= past ? start - past : start - past + p.state_length;
    for_ring(oldest, past, p.state_length, [&](int64_t place, int64_t offset, int64_t count) {
      load_steps<V, S>(window + offset * V::N, p.state, lanes.slot, lanes, place, count);
    });
  } else {
    load_steps<V, S>(window, p.state, lanes.slot, lanes, 0, before);
  }
  load_steps<V, S>(x, p.x, lanes.batch, lanes, 0, p.length);
  load_channel_tile<V>(weight, static_cast<const N*>(p.weight) + lanes.channel * p.width, p.width,
                       1, lanes.count, static_cast<int>(p.width));
  const V bias =
      p.bias ? load<V>(static_cast<const N*>(p.bias) + lanes.channel, lanes.count) : zero<V>();

  // compute
  for (int64_t t = 0; t < p.length; t++) {
    store(out + t * V::N, convolve_step<V>(p, weight, bias, x + (t - past) * V::N));
  }

  // store
  store_steps<V, S>(p.out, lanes.batch, lanes, 0, p.length, out);
  if (!ring) {
    store_steps<V, S>(p.state, lanes.slot, lanes, 0, before, window + p.length * V::N);
  } else if (p.state_length > 0) {
    const int64_t lost = p.length < p.state_length ? 0 : p.length - p.state_length;
    for_ring((start + lost) % p.state_length, p.length - lost, p.state_length,
             [&](int64_t place, int64_t offset, int64_t count) {
               store_steps<V, S>(p.state, lanes.slot, lanes, place, count,
                                 x + (lost + offset) * V::N);
             });
  }
}

template <class V, class S, class N>
void clear_lanes(const CausalConv1dUpdateParams& p, const UpdateLanes& lanes) {
  for (int64_t t = 0; t < p.length; t++) {
    for (int i = 0; i < lanes.count; i++) {
      store(at<S>(p.out, lanes.batch, lanes.channel + i, t), zero<V>(), 1);
    }
  }
}

}  // namespace causal_conv1d

void causal_conv1d_update_range(const CausalConv1dUpdateParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t blocks = conv_pieces_of(p.channels, kConvUpdateChannels);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename LanesOf<S>::type;
    using N = typename LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t batch = unit / blocks, first = unit % blocks * kConvUpdateChannels;
      const int64_t block_end = first + kConvUpdateChannels;
      const int64_t last = block_end < p.channels ? block_end : p.channels;
      const int64_t slot = p.slots ? p.slots[batch] : batch;
      const auto run =
          slot < 0 ? causal_conv1d::clear_lanes<V, S, N> : causal_conv1d::update_lanes<V, S, N>;
      for (int64_t c = first; c < last; c += V::N) {
        run(p, {batch, c, slot, static_cast<int>(last - c < V::N ? last - c : V::N)});
      }
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
