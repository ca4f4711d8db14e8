// causal_conv1d of up to four taps on CUDA where the steps of a channel are adjacent. A thread has
// 16 of them in registers and gets the few before and behind them from its neighbours.
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/row_tile.cuh"
#include "ops/causal_conv1d/cuda/steps.cuh"

namespace suffuse {

struct ConvRowItems {
  static constexpr int kOwn = ConvShape::kRowItems, kHalo = kConvLags - 1;
};

// Steps of a row: v[kHalo + i] is the thread's item i, kHalo before them and, with kBehind, kHalo
// behind them; 0 beyond the row.
template <class S, bool kBehind>
struct ConvWindow : ConvRowItems {
  using Tile = RowTile<S, ConvShape::kRowThreads, kOwn>;
  static constexpr int kCount = kOwn + (kBehind ? 2 : 1) * kHalo;

  // What is on its way: the outermost lanes of a warp load their neighbours themselves.
  typename Tile::Loaded own;
  float before[kHalo], behind[kHalo];

  SUFFUSE_DEVICE void load(const S* row, int64_t window, int64_t length) {
    own = Tile::load(row, window, length);
    const int64_t first = window + static_cast<int>(threadIdx.x) * kOwn;
    const auto element = [&](int64_t t) {
      return t >= 0 && t < length ? gpu::to_float(row[t]) : 0.f;
    };
    const bool leftmost = gpu::lane() == 0, rightmost = gpu::lane() == 31;
#pragma unroll
    for (int h = 0; h < kHalo; h++) {
      before[h] = leftmost ? element(first - kHalo + h) : 0.f;
      behind[h] = kBehind && rightmost ? element(first + kOwn + h) : 0.f;
    }
  }

  SUFFUSE_DEVICE void exchange(typename Tile::Shared& shared, float (&v)[kCount]) const {
    float items[kOwn];
    Tile::exchange(shared, own, items);
#pragma unroll
    for (int i = 0; i < kOwn; i++) v[kHalo + i] = items[i];
    const int lane = gpu::lane();
#pragma unroll
    for (int h = 0; h < kHalo; h++) {
      const float left = shuffle_up(items[kOwn - kHalo + h], 1);
      v[h] = lane == 0 ? before[h] : left;
      if (kBehind) {
        const float right = shuffle(items[h], lane == 31 ? 31 : lane + 1);
        v[kHalo + kOwn + h] = lane == 31 ? behind[h] : right;
      }
    }
  }
};

// What a thread knows of its row.
struct ConvRowPlace {
  ConvPlace at;
  int64_t row;            // of the partials
  int64_t window, first;  // where the block's window and the thread's items start
  bool masked;            // whether reach matters: some items see less than all of the past
};
template <class S>
SUFFUSE_DEVICE ConvRowPlace conv_row_place(const CausalConv1dParams& p, int64_t pieces) {
  const int64_t index = blockIdx.x / pieces, piece = blockIdx.x - index * pieces;
  const ConvPlace at = {index / p.channels, index % p.channels};
  const int64_t window =
      first_window(conv_row<const S>(p.x, at)) + piece * int64_t{ConvShape::kRowTile};
  const int64_t first = window + static_cast<int>(threadIdx.x) * ConvShape::kRowItems;
  const bool inside = first >= 0 && first + ConvShape::kRowItems <= p.length;
  return {at, at.batch * pieces + piece, window, first, p.sequence || !inside};
}

// The initial state into the places of x before the first step.
template <class S, int kCount>
SUFFUSE_DEVICE void add_initial(const CausalConv1dParams& p, const ConvRowPlace& place,
                                float (&x)[kCount]) {
  const int64_t start = place.first - ConvRowItems::kHalo;
  if (start >= 0 || !p.initial.data) return;
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    if (start + i < 0) x[i] = conv_input<S>(p, place.at, start + i);
  }
}

// How far back each item may look: conv_reach, from the sequence indices of a window. -1 also for
// items outside of the row.
template <bool kBehind, int kReach>
SUFFUSE_DEVICE void find_reach(const CausalConv1dParams& p, const ConvRowPlace& place,
                               typename ConvWindow<float, kBehind>::Tile::Shared& shared,
                               int (&reach)[kReach]) {
  using Index = ConvWindow<float, kBehind>;
#pragma unroll
  for (int i = 0; i < kReach; i++) {
    const int64_t time = place.first + i;
    reach[i] = time >= 0 && time < p.length ? kConvLags - 1 : -1;
  }
  if (!p.sequence) return;
  Index window;
  float index[Index::kCount];
  // Their bits travel as those of floats.
  const auto* row = reinterpret_cast<const float*>(p.sequence + place.at.batch * p.length);
  window.load(row, place.window, p.length);
  window.exchange(shared, index);
  const auto same = [&](int i) {  // as the step before
    return place.first + i <= 0 ||
           __float_as_int(index[Index::kHalo + i]) == __float_as_int(index[Index::kHalo + i - 1]);
  };
#pragma unroll
  for (int i = 0; i < kReach; i++) {
    const int run = !same(i) ? 0 : !same(i - 1) ? 1 : !same(i - 2) ? 2 : 3;
    const bool padding = __float_as_int(index[Index::kHalo + i]) < 0;
    if (reach[i] >= 0) reach[i] = padding ? -1 : run;
  }
}

struct ConvTaps {
  float lags[kConvLags], bias;
};
SUFFUSE_DEVICE ConvTaps load_taps(const CausalConv1dParams& p, int64_t channel) {
  ConvTaps taps = {{}, conv_bias<float>(p, channel)};
#pragma unroll
  for (int lag = 0; lag < kConvLags; lag++) {
    if (lag < p.width) taps.lags[lag] = conv_weight<float>(p, channel, lag);
  }
  return taps;
}

// z of the items; x has kHalo more in front.
template <int kCount, int kReach>
SUFFUSE_DEVICE void convolve(const CausalConv1dParams& p, const ConvTaps& taps, bool masked,
                             const float (&x)[kCount], const int (&reach)[kReach],
                             float (&z)[kReach]) {
#pragma unroll
  for (int i = 0; i < kReach; i++) z[i] = taps.bias;
#pragma unroll
  for (int lag = kConvLags - 1; lag >= 0; lag--) {
    if (lag >= p.width) continue;
#pragma unroll
    for (int i = 0; i < kReach; i++) {
      const float sum = fmaf(taps.lags[lag], x[ConvRowItems::kHalo + i - lag], z[i]);
      z[i] = !masked || lag <= reach[i] ? sum : z[i];
    }
  }
}

template <class S>
struct ConvRowShared {
  typename ConvWindow<S, true>::Tile::Shared tile;
  typename ConvWindow<float, true>::Tile::Shared index;
  typename BlockReduce<ConvSums<float>>::Shared reduce;
};

// Block b: window b % pieces of row b / pieces.
template <class S>
__global__ void __launch_bounds__(ConvShape::kRowThreads)
    conv_rows_forward_kernel(const CausalConv1dParams p, int64_t pieces) {
  using Window = ConvWindow<S, false>;
  auto& shared = gpu::shared<ConvRowShared<S>>();
  const ConvRowPlace place = conv_row_place<S>(p, pieces);
  const ConvTaps taps = load_taps(p, place.at.channel);

  // load
  Window window;
  window.load(conv_row<const S>(p.x, place.at), place.window, p.length);
  int reach[Window::kOwn];
  find_reach<false>(p, place, shared.index, reach);
  float x[Window::kCount], out[Window::kOwn];
  window.exchange(shared.tile, x);
  add_initial<S>(p, place, x);

  // compute
  convolve(p, taps, place.masked, x, reach, out);
#pragma unroll
  for (int i = 0; i < Window::kOwn; i++) {
    if (p.silu) out[i] = conv_silu(out[i]);
    if (reach[i] < 0) out[i] = 0.f;
  }

  // store
  Window::Tile::store(shared.tile, out, conv_row<S>(p.out, place.at), place.window, p.length);
}

// The gradient of z, in place of that of out; 0 outside of the row.
template <int kCount, int kReach>
SUFFUSE_DEVICE void slope_gradient(const CausalConv1dParams& p, const ConvTaps& taps,
                                   const ConvRowPlace& place, const float (&x)[kCount],
                                   const int (&reach)[kReach], float (&grad)[kReach]) {
  float z[kReach] = {};
  if (p.silu) convolve(p, taps, place.masked, x, reach, z);
#pragma unroll
  for (int i = 0; i < kReach; i++) {
    const float slope = p.silu ? conv_slope(z[i]) : 1.f;
    grad[i] = reach[i] >= 0 ? grad[i] * slope : 0.f;
  }
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kRowThreads, ConvShape::kRowBlocks)
    conv_rows_backward_kernel(const CausalConv1dGradParams g, int64_t pieces) {
  using Window = ConvWindow<S, true>;
  constexpr int kOwn = Window::kOwn, kHalo = Window::kHalo;
  auto& shared = gpu::shared<ConvRowShared<S>>();
  const CausalConv1dParams& p = g.forward;
  const ConvRowPlace place = conv_row_place<S>(p, pieces);
  const ConvTaps taps = load_taps(p, place.at.channel);

  // load
  Window window, grad_window;
  window.load(conv_row<const S>(p.x, place.at), place.window, p.length);
  grad_window.load(conv_row<const S>(g.grad_out, place.at), place.window, p.length);
  int reach[kOwn + kHalo];
  find_reach<true>(p, place, shared.index, reach);
  float x[Window::kCount], around[Window::kCount], grad[kOwn + kHalo];
  window.exchange(shared.tile, x);
  add_initial<S>(p, place, x);
  grad_window.exchange(shared.tile, around);
#pragma unroll
  for (int i = 0; i < kOwn + kHalo; i++) grad[i] = around[kHalo + i];

  // compute
  slope_gradient(p, taps, place, x, reach, grad);
  ConvSums<float> sums = {};
  float grad_x[kOwn] = {};
#pragma unroll
  for (int i = 0; i < kOwn; i++) sums.bias += grad[i];
#pragma unroll
  for (int lag = 0; lag < kConvLags; lag++) {
    if (lag >= p.width) continue;
#pragma unroll
    for (int i = 0; i < kOwn; i++) {
      const float to_x = fmaf(taps.lags[lag], grad[i + lag], grad_x[i]);
      const float to_weight = fmaf(grad[i], x[kHalo + i - lag], sums.lags[lag]);
      grad_x[i] = !place.masked || lag <= reach[i + lag] ? to_x : grad_x[i];
      sums.lags[lag] = !place.masked || lag <= reach[i] ? to_weight : sums.lags[lag];
    }
  }

  // store
  Window::Tile::store(shared.tile, grad_x, conv_row<S>(g.grad_x, place.at), place.window, p.length);
  sums = BlockReduce<ConvSums<float>>(shared.reduce)(sums, AddConvSums());
  store_conv_sums(g, sums, place.row, place.at.channel, 0, threadIdx.x);
}

}  // namespace suffuse
