// causal_conv1d forward: channels on the lanes, tiles of steps behind the width - 1 before them.
#include "ops/causal_conv1d/cpu/kernel.h"

#include "ops/causal_conv1d/cpu/window-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

template <int kWidth, class V, class S, class N>
void convolve_chunk(const CausalConv1dParams& p, const Lanes& lanes, int64_t begin, int64_t end) {
  const int64_t past = p.width - 1;
  N* weight = static_cast<N*>(
      causal_conv1d_scratch((2 * p.width + 2 * kTile) * V::N * static_cast<int64_t>(sizeof(N))));
  N* window = weight + p.width * V::N;
  alignas(64) N out[kTile * V::N];
  load_weights<V>(weight, p, lanes);
  const V bias =
      p.bias ? load<V>(static_cast<const N*>(p.bias) + lanes.channel, lanes.count) : zero<V>();
  load_before<V, S>(window, p, lanes, begin - past, static_cast<int>(past));
  Run run(p, lanes.batch, begin);
  for (int64_t t = begin; t < end; t += kTile) {
    const int count = static_cast<int>(end - t < kTile ? end - t : kTile);
    load_steps<V, S>(window + past * V::N, p.x, lanes, t, count);
    for (int i = 0; i < count; i++) {
      run.step(t + i);
      const int64_t first = run.first_tap(t + i);
      V y = zero<V>();
      if (first < p.width) {
        y = convolve<kWidth>(weight, window + i * V::N, bias, p.width, first);
        if (p.silu) y = silu(y);
      }
      store(out + i * V::N, y);
    }
    store_steps<V, S>(p.out, lanes, t, count, out);
    for (int64_t k = 0; k < past; k++) {
      store(window + k * V::N, load<V>(window + (k + kTile) * V::N));
    }
  }
}

}  // namespace causal_conv1d

void causal_conv1d_fwd_range(const CausalConv1dParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t chunks = conv_chunks(p), blocks = conv_blocks(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename LanesOf<S>::type;
    using N = typename LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t first = unit % chunks * kConvChunk;
      const int64_t last = first + kConvChunk < p.length ? first + kConvChunk : p.length;
      causal_conv1d::for_lanes<V>(p, unit / chunks / blocks, unit / chunks % blocks,
                                  [&](const causal_conv1d::Lanes& lanes) {
                                    causal_conv1d::for_width(p.width, [&](auto width) {
                                      causal_conv1d::convolve_chunk<width.value, V, S, N>(
                                          p, lanes, first, last);
                                    });
                                  });
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
