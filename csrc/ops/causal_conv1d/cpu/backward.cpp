// causal_conv1d backward, in the order of time: each step adds to the gradients of the width - 1
// steps before it, which leave the window when they are complete.
#include "ops/causal_conv1d/cpu/kernel.h"
#include "ops/causal_conv1d/cpu/window-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace causal_conv1d {

template <class V>
SUFFUSE_INLINE V silu_slope(V z) {
  const V s = sigmoid(z);
  return muladd(z * s, V(1) - s, s);
}

template <class N>
struct GradWindow {
  N *weight, *x, *grad_x, *grad_weight;  // [width], [width - 1 + tile] twice, [width] of lanes
};

// One tile; `grad` holds the gradient of out and stays.
template <class V, class N>
SUFFUSE_INLINE void tile_backward(const CausalConv1dParams& p, const GradWindow<N>& w,
                                  const N* grad, V bias, Run& run, int64_t t, int count,
                                  V& grad_bias) {
  for (int i = 0; i < count; i++) {
    run.step(t + i);
    const int64_t first = run.first_tap(t + i);
    if (first >= p.width) continue;
    V g = load<V>(grad + i * V::N);
    if (p.silu) {
      g *= silu_slope(convolve<0>(w.weight, w.x + i * V::N, bias, p.width, first));
    }
    grad_bias += g;
    for (int64_t k = first; k < p.width; k++) {
      N *x = w.x + (i + k) * V::N, *to_x = w.grad_x + (i + k) * V::N;
      N* to_weight = w.grad_weight + k * V::N;
      store(to_x, muladd(load<V>(w.weight + k * V::N), g, load<V>(to_x)));
      store(to_weight, muladd(g, load<V>(x), load<V>(to_weight)));
    }
  }
}

// Finished gradients of the steps [time, time + count), initial state included.
template <class V, class S, class N>
SUFFUSE_INLINE void store_gradients(const CausalConv1dGradParams& g, const Lanes& lanes,
                                    int64_t time, int count, const N* from) {
  const int old = time < 0 ? static_cast<int>(-time < count ? -time : count) : 0;
  if (old > 0 && g.grad_initial.data) {
    store_steps<V, S>(g.grad_initial, lanes, time + g.forward.width - 1, old, from);
  }
  if (count > old) {
    store_steps<V, S>(g.grad_x, lanes, time + old, count - old, from + old * V::N);
  }
}

template <class V, class N>
SUFFUSE_INLINE void slide(N* window, int64_t past) {
  for (int64_t k = 0; k < past; k++) {
    store(window + k * V::N, load<V>(window + (k + kTile) * V::N));
  }
}

template <class V, class S, class N>
void lanes_backward(const CausalConv1dGradParams& g, const Lanes& lanes) {
  const CausalConv1dParams& p = g.forward;
  const int64_t past = p.width - 1, window = (past + 2 * kTile) * V::N;
  const int64_t bytes = (2 * window + 2 * p.width * V::N) * static_cast<int64_t>(sizeof(N));
  GradWindow<N> w;
  w.x = static_cast<N*>(causal_conv1d_scratch(bytes));
  w.grad_x = w.x + window;
  w.weight = w.grad_x + window;
  w.grad_weight = w.weight + p.width * V::N;
  __builtin_memset(w.x, 0, static_cast<size_t>(bytes));
  load_weights<V>(w.weight, p, lanes);
  load_before<V, S>(w.x, p, lanes, -past, static_cast<int>(past));
  const V bias =
      p.bias ? load<V>(static_cast<const N*>(p.bias) + lanes.channel, lanes.count) : zero<V>();
  alignas(64) N grad[kTile * V::N];
  V grad_bias = zero<V>();
  Run run(p, lanes.batch, 0);
  int64_t t = 0;
  for (; t < p.length; t += kTile) {
    const int count = static_cast<int>(p.length - t < kTile ? p.length - t : kTile);
    load_steps<V, S>(w.x + past * V::N, p.x, lanes, t, count);
    load_steps<V, S>(grad, g.grad_out, lanes, t, count);
    for (int i = 0; i < kTile; i++) store(w.grad_x + (past + i) * V::N, zero<V>());
    tile_backward<V>(p, w, grad, bias, run, t, count, grad_bias);
    store_gradients<V, S>(g, lanes, t - past, count, w.grad_x);
    if (count < kTile) {
      for (int64_t k = 0; k < past; k++) {
        store(w.grad_x + k * V::N, load<V>(w.grad_x + (k + count) * V::N));
      }
      t += count;
      break;
    }
    slide<V>(w.x, past);
    slide<V>(w.grad_x, past);
  }
  t = t < p.length ? t : p.length;
  store_gradients<V, S>(g, lanes, t - past, static_cast<int>(past), w.grad_x);
  const int64_t row = lanes.batch * p.channels + lanes.channel;
  N* grad_weight = static_cast<N*>(g.grad_weight) + row * p.width;
  for (int64_t k = 0; k < p.width; k++) {
    for (int i = 0; i < lanes.count; i++) {
      grad_weight[i * p.width + k] = w.grad_weight[k * V::N + i];
    }
  }
  store(static_cast<N*>(g.grad_bias) + row, grad_bias, lanes.count);
}

}  // namespace causal_conv1d

void causal_conv1d_bwd_range(const CausalConv1dGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t blocks = conv_blocks(g.forward);
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename LanesOf<S>::type;
    using N = typename LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      causal_conv1d::for_lanes<V>(g.forward, unit / blocks, unit % blocks,
                                  [&](const causal_conv1d::Lanes& lanes) {
                                    causal_conv1d::lanes_backward<V, S, N>(g, lanes);
                                  });
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
