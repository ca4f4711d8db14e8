// What the CUDA kernels of causal_conv1d have in common: single steps.
#pragma once

#include "cuda/groups.cuh"
#include "ops/causal_conv1d/cuda/config.h"

namespace suffuse {

template <class S>
using ConvNumber = decltype(widen(S{}));

struct ConvPlace {
  int64_t batch, channel;
};

// The first step of a row.
template <class S>
SUFFUSE_DEVICE S* conv_row(const ConvRows& rows, const ConvPlace& at) {
  return static_cast<S*>(rows.data) + at.batch * rows.batch + at.channel * rows.channel;
}

// x, before the first step the initial state; 0 where there is neither.
template <class S>
SUFFUSE_DEVICE ConvNumber<S> conv_input(const CausalConv1dParams& p, const ConvPlace& at,
                                        int64_t time) {
  const int64_t old = time + p.width - 1;
  if (time >= p.length || old < 0) return 0;
  if (time >= 0) return widen(conv_row<const S>(p.x, at)[time * p.x.time]);
  if (!p.initial.data) return 0;
  return widen(conv_row<const S>(p.initial, at)[old * p.initial.time]);
}

// How many steps before `time` belong to its sequence, up to width - 1; -1 for padding. The initial
// state belongs to the first sequence.
SUFFUSE_DEVICE int64_t conv_reach(const CausalConv1dParams& p, int64_t batch, int64_t time) {
  const int64_t most = p.width - 1;
  if (!p.sequence) return most;
  const int32_t* sequence = p.sequence + batch * p.length;
  const int32_t own = sequence[time];
  if (own < 0) return -1;
  for (int64_t lag = 1; lag <= most && lag <= time; lag++) {
    if (sequence[time - lag] != own) return lag - 1;
  }
  return most;
}

template <class T>
SUFFUSE_DEVICE T conv_weight(const CausalConv1dParams& p, int64_t channel, int64_t lag) {
  return static_cast<const T*>(p.weight)[channel * p.width + p.width - 1 - lag];
}
template <class T>
SUFFUSE_DEVICE T conv_bias(const CausalConv1dParams& p, int64_t channel) {
  return p.bias ? static_cast<const T*>(p.bias)[channel] : T(0);
}

SUFFUSE_DEVICE float conv_sigmoid(float z) {
  return gpu::reciprocal_approx(1.f + gpu::exp2_approx(-1.44269504f * z));
}
SUFFUSE_DEVICE double conv_sigmoid(double z) { return 1. / (1. + ::exp(-z)); }

template <class T>
SUFFUSE_DEVICE T conv_silu(T z) {
  return z * conv_sigmoid(z);
}
// Its derivative.
template <class T>
SUFFUSE_DEVICE T conv_slope(T z) {
  const T s = conv_sigmoid(z);
  return s * (T(1) + z * (T(1) - s));
}

// What a part of time adds to the gradients of a channel's taps, by lag, and of its bias.
template <class T>
struct ConvSums {
  T lags[kConvLags], bias;
};
struct AddConvSums {
  template <class T>
  SUFFUSE_DEVICE ConvSums<T> operator()(const ConvSums<T>& a, const ConvSums<T>& b) const {
    ConvSums<T> sum;
#pragma unroll
    for (int lag = 0; lag < kConvLags; lag++) sum.lags[lag] = a.lags[lag] + b.lags[lag];
    sum.bias = a.bias + b.bias;
    return sum;
  }
};

// Writes the sums of the lags first_lag + 0 to 3, with those of lag 0 the bias's, to row `row` of
// the partials: entry i of them, in the thread that is given it.
template <class T>
SUFFUSE_DEVICE void store_conv_sums(const CausalConv1dGradParams& g, const ConvSums<T>& sums,
                                    int64_t row, int64_t channel, int64_t first_lag, int i) {
  const CausalConv1dParams& p = g.forward;
  T* out = static_cast<T*>(g.partials) + row * conv_entries(p);
  T mine = sums.bias;
#pragma unroll
  for (int lag = 0; lag < kConvLags; lag++) {
    if (i == lag) mine = sums.lags[lag];
  }
  const int64_t lag = first_lag + i;
  if (i < kConvLags && lag < p.width) out[conv_entry(p, channel, p.width - 1 - lag)] = mine;
  if (i == kConvLags && first_lag == 0) out[conv_entry(p, channel, p.width)] = mine;
}

}  // namespace suffuse
