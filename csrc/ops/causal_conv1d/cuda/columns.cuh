// causal_conv1d of up to four taps on CUDA where the channels of a step are adjacent. A lane has
// two channels and goes along time, with the last few steps in registers.
#pragma once

#include "ops/causal_conv1d/cuda/steps.cuh"

namespace suffuse {

constexpr int kConvPair = 2;

template <class S>
using ConvPairWord = std::conditional_t<sizeof(S) == 4, uint2, uint32_t>;

// The first `count` of two elements, the others 0.
template <class S>
SUFFUSE_DEVICE void load_pair(const S* p, int count, float (&v)[kConvPair]) {
  using Word = ConvPairWord<S>;
  if (count == kConvPair && is_aligned<Word>(p)) {
    unpack_group<S>(gpu::load_vector<Word>(p), v);
  } else {
#pragma unroll
    for (int k = 0; k < kConvPair; k++) v[k] = k < count ? gpu::to_float(p[k]) : 0.f;
  }
}
template <class S>
SUFFUSE_DEVICE void store_pair(S* p, int count, const float (&v)[kConvPair]) {
  using Word = ConvPairWord<S>;
  if (count == kConvPair && is_aligned<Word>(p)) {
    gpu::store_vector(p, pack_group<S, Word>(v));
  } else {
#pragma unroll
    for (int k = 0; k < kConvPair; k++) {
      if (k < count) p[k] = gpu::from_float<S>(v[k]);
    }
  }
}

// What a thread has: channels [at.channel, + count), steps [begin, end).
struct ConvColumn {
  ConvPlace at;
  int count;
  int64_t begin, end;
  int64_t first_channel;  // of the block
  int64_t row;            // of the partials
};
SUFFUSE_DEVICE ConvColumn conv_column(const CausalConv1dParams& p, int64_t pieces, int64_t blocks) {
  using Shape = ConvShape;
  const int64_t block = blockIdx.x % blocks, row = blockIdx.x / blocks, batch = row / pieces;
  const int64_t first = block * Shape::kColumnChannels, channel = first + gpu::lane() * kConvPair;
  const int64_t begin = (row - batch * pieces) * Shape::kColumnTile +
                        static_cast<int>(gpu::warp()) * Shape::kColumnSteps;
  const int64_t end = begin + Shape::kColumnSteps, left = p.channels - channel;
  return {{batch, channel},
          static_cast<int>(left < 0           ? 0
                           : left < kConvPair ? left
                                              : kConvPair),
          begin,
          end < p.length ? end : p.length,
          first,
          row};
}

// x or the initial state of the thread's channels.
template <class S>
SUFFUSE_DEVICE void load_input(const CausalConv1dParams& p, const ConvColumn& column, int64_t time,
                               float (&v)[kConvPair]) {
  if (time >= 0)
    return load_pair(conv_row<const S>(p.x, column.at) + time * p.x.time, column.count, v);
#pragma unroll
  for (int k = 0; k < kConvPair; k++) {
    const ConvPlace at = {column.at.batch, column.at.channel + k};
    v[k] = k < column.count ? conv_input<S>(p, at, time) : 0.f;
  }
}

// The taps of a block's channels, on their way to the lanes. The rows of the taps lie at a distance
// that keeps both ways free of bank conflicts where the width is a power of two.
struct ConvTapRows {
  static constexpr int kChannels = ConvShape::kColumnChannels, kMostStride = kChannels + 32;
  float taps[kConvLags * kMostStride];

  SUFFUSE_DEVICE static int stride(int width) { return kChannels + 32 / width / 2 * 2; }

  SUFFUSE_DEVICE void load(const CausalConv1dParams& p, int64_t first_channel) {
    const int width = static_cast<int>(p.width);
    const float* weight = static_cast<const float*>(p.weight) + first_channel * width;
    const int64_t left = (p.channels - first_channel) * width;
    for (int i = threadIdx.x; i < kChannels * width; i += ConvShape::kColumnThreads) {
      taps[i % width * stride(width) + i / width] = i < left ? weight[i] : 0.f;
    }
    __syncthreads();
  }
};

struct ConvPairTaps {
  float lags[kConvLags][kConvPair], bias[kConvPair];
};
SUFFUSE_DEVICE ConvPairTaps pair_taps(const CausalConv1dParams& p, const ConvColumn& column,
                                      const ConvTapRows& rows) {
  const int width = static_cast<int>(p.width);
  ConvPairTaps taps = {};
#pragma unroll
  for (int lag = 0; lag < kConvLags; lag++) {
    if (lag >= width) continue;
    const float* from = rows.taps + (width - 1 - lag) * ConvTapRows::stride(width);
    const float2 both = gpu::load_vector<float2>(from + gpu::lane() * kConvPair);
    taps.lags[lag][0] = both.x;
    taps.lags[lag][1] = both.y;
  }
  if (p.bias) {
    load_pair(static_cast<const float*>(p.bias) + column.at.channel, column.count, taps.bias);
  }
  return taps;
}

// A stretch of steps in registers, behind those that it looks back to.
struct ConvStretch {
  static constexpr int kSteps = 8, kHalo = kConvLags - 1, kCount = kHalo + kSteps;
};

template <int kCount, class T>
SUFFUSE_DEVICE void slide(T (&steps)[kCount]) {
#pragma unroll
  for (int h = 0; h < ConvStretch::kHalo; h++) steps[h] = steps[h + ConvStretch::kSteps];
}
template <int kCount>
SUFFUSE_DEVICE void slide(float (&steps)[kCount][kConvPair]) {
#pragma unroll
  for (int h = 0; h < ConvStretch::kHalo; h++) {
#pragma unroll
    for (int k = 0; k < kConvPair; k++) steps[h][k] = steps[h + ConvStretch::kSteps][k];
  }
}

// z of step i of the stretch.
SUFFUSE_DEVICE void convolve_pair(const CausalConv1dParams& p, const ConvPairTaps& taps,
                                  const float (&x)[ConvStretch::kCount][kConvPair], int i,
                                  int reach, float (&z)[kConvPair]) {
#pragma unroll
  for (int k = 0; k < kConvPair; k++) z[k] = taps.bias[k];
#pragma unroll
  for (int lag = kConvLags - 1; lag >= 0; lag--) {
    if (lag >= p.width || lag > reach) continue;
#pragma unroll
    for (int k = 0; k < kConvPair; k++) {
      z[k] = fmaf(taps.lags[lag][k], x[ConvStretch::kHalo + i - lag][k], z[k]);
    }
  }
}

// Block b: channels b % blocks of piece b / blocks % pieces of a batch entry.
template <class S>
__global__ void __launch_bounds__(ConvShape::kColumnThreads)
    conv_columns_forward_kernel(const CausalConv1dParams p, int64_t pieces, int64_t blocks) {
  using Stretch = ConvStretch;
  auto& shared = gpu::shared<ConvTapRows>();
  const ConvColumn column = conv_column(p, pieces, blocks);
  shared.load(p, column.first_channel);
  const ConvPairTaps taps = pair_taps(p, column, shared);
  if (column.begin >= column.end || column.count == 0) return;
  S* out = conv_row<S>(p.out, column.at);

  float x[Stretch::kCount][kConvPair] = {};
#pragma unroll
  for (int h = 0; h < Stretch::kHalo; h++) {
    const int64_t time = column.begin - Stretch::kHalo + h;
    if (h + p.width > Stretch::kHalo) load_input<S>(p, column, time, x[h + Stretch::kSteps]);
  }
  for (int64_t start = column.begin; start < column.end; start += Stretch::kSteps) {
    slide(x);
#pragma unroll
    for (int i = 0; i < Stretch::kSteps; i++) {
      if (start + i < column.end) load_input<S>(p, column, start + i, x[Stretch::kHalo + i]);
    }
#pragma unroll
    for (int i = 0; i < Stretch::kSteps; i++) {
      const int64_t time = start + i;
      if (time >= column.end) continue;
      const int reach = static_cast<int>(conv_reach(p, column.at.batch, time));
      float z[kConvPair];
      convolve_pair(p, taps, x, i, reach, z);
#pragma unroll
      for (int k = 0; k < kConvPair; k++) {
        if (p.silu) z[k] = conv_silu(z[k]);
        if (reach < 0) z[k] = 0.f;
      }
      store_pair(out + time * p.out.time, column.count, z);
    }
  }
}

struct ConvColumnShared {
  ConvTapRows taps;
  float sums[ConvShape::kColumnWarps][kConvLags + 1][ConvShape::kColumnChannels];
};

// What a thread of the backward kernel has of a stretch, and gathers over its run.
struct ConvColumnGradient {
  float x[ConvStretch::kCount][kConvPair], grad[ConvStretch::kCount][kConvPair];
  int reach[ConvStretch::kCount];
  ConvSums<float> sums[kConvPair];
};

// x and the gradient of z at the steps [start, start + 8): of those in the run, or that look back
// into it.
template <class S>
SUFFUSE_DEVICE void load_stretch(const CausalConv1dGradParams& g, const ConvColumn& column,
                                 const ConvPairTaps& taps, int64_t start, ConvColumnGradient& t) {
  using Stretch = ConvStretch;
  const CausalConv1dParams& p = g.forward;
  const S* grad_out = conv_row<const S>(g.grad_out, column.at);
  const int64_t past = p.width - 1;
  const int64_t last = column.end + past < p.length ? column.end + past : p.length;
#pragma unroll
  for (int i = 0; i < Stretch::kSteps; i++) {
    const int64_t time = start + i;
    float (&grad)[kConvPair] = t.grad[Stretch::kHalo + i];
    grad[0] = grad[1] = 0.f;
    if (time >= column.begin - past && time < last) {
      load_input<S>(p, column, time, t.x[Stretch::kHalo + i]);
    }
    if (time >= column.begin && time < last) {
      load_pair(grad_out + time * g.grad_out.time, column.count, grad);
    }
  }
#pragma unroll
  for (int i = 0; i < Stretch::kSteps; i++) {
    const int64_t time = start + i;
    const int at = Stretch::kHalo + i;
    const bool inside = time >= column.begin && time < last;
    t.reach[at] = inside ? static_cast<int>(conv_reach(p, column.at.batch, time)) : -1;
    float z[kConvPair] = {};
    if (p.silu && inside) convolve_pair(p, taps, t.x, i, t.reach[at], z);
#pragma unroll
    for (int k = 0; k < kConvPair; k++) {
      const float slope = p.silu ? conv_slope(z[k]) : 1.f;
      t.grad[at][k] = t.reach[at] >= 0 ? t.grad[at][k] * slope : 0.f;
    }
    if (!inside || time >= column.end) continue;
#pragma unroll
    for (int k = 0; k < kConvPair; k++) {
      t.sums[k].bias += t.grad[at][k];
#pragma unroll
      for (int lag = 0; lag < kConvLags; lag++) {
        if (lag >= p.width || lag > t.reach[at]) continue;
        t.sums[k].lags[lag] = fmaf(t.grad[at][k], t.x[at - lag][k], t.sums[k].lags[lag]);
      }
    }
  }
}

// The gradient of x at step i of the stretch, kHalo steps behind the front.
SUFFUSE_DEVICE void input_gradient(const CausalConv1dParams& p, const ConvPairTaps& taps,
                                   const ConvColumnGradient& t, int i, float (&grad)[kConvPair]) {
  grad[0] = grad[1] = 0.f;
#pragma unroll
  for (int lag = 0; lag < kConvLags; lag++) {
    if (lag >= p.width || lag > t.reach[i + lag]) continue;
#pragma unroll
    for (int k = 0; k < kConvPair; k++) {
      grad[k] = fmaf(taps.lags[lag][k], t.grad[i + lag][k], grad[k]);
    }
  }
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kColumnThreads)
    conv_columns_backward_kernel(const CausalConv1dGradParams g, int64_t pieces, int64_t blocks) {
  using Stretch = ConvStretch;
  auto& shared = gpu::shared<ConvColumnShared>();
  const CausalConv1dParams& p = g.forward;
  const ConvColumn column = conv_column(p, pieces, blocks);
  shared.taps.load(p, column.first_channel);
  const ConvPairTaps taps = pair_taps(p, column, shared.taps);
  S* grad_x = conv_row<S>(g.grad_x, column.at);

  // The front is kHalo steps ahead of the results, which need the gradients there.
  ConvColumnGradient t = {};
  const bool there = column.begin < column.end && column.count > 0;
  for (int64_t start = column.begin - Stretch::kSteps; there && start < column.end;
       start += Stretch::kSteps) {
    slide(t.x);
    slide(t.grad);
    slide(t.reach);
    load_stretch<S>(g, column, taps, start + Stretch::kHalo, t);
#pragma unroll
    for (int i = 0; i < Stretch::kSteps; i++) {
      const int64_t time = start + i;
      if (time < column.begin || time >= column.end) continue;
      float grad[kConvPair];
      input_gradient(p, taps, t, i, grad);
      store_pair(grad_x + time * g.grad_x.time, column.count, grad);
    }
  }

  // The sums of the warps, in their order.
  auto& mine = shared.sums[gpu::warp()];
#pragma unroll
  for (int i = 0; i <= kConvLags; i++) {
    const float2 both = i < kConvLags ? float2{t.sums[0].lags[i], t.sums[1].lags[i]}
                                      : float2{t.sums[0].bias, t.sums[1].bias};
    gpu::store_vector(&mine[i][gpu::lane() * kConvPair], both);
  }
  __syncthreads();
  const int width = static_cast<int>(p.width);
  float* out = static_cast<float*>(g.partials) + column.row * conv_entries(p);
  for (int i = threadIdx.x; i < (width + 1) * ConvShape::kColumnChannels;
       i += ConvShape::kColumnThreads) {
    const int tap = i / ConvShape::kColumnChannels, c = i % ConvShape::kColumnChannels;
    const int slot = tap < width ? width - 1 - tap : kConvLags;
    if (column.first_channel + c >= p.channels) continue;
    float sum = 0;
    for (int w = 0; w < ConvShape::kColumnWarps; w++) sum += shared.sums[w][slot][c];
    out[conv_entry(p, column.first_channel + c, tap)] = sum;
  }
}

}  // namespace suffuse
