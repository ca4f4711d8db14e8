// causal_conv1d_update on CUDA: a thread has a channel, its state and all new steps.
#pragma once

#include "ops/causal_conv1d/cuda/steps.cuh"

namespace suffuse {

// One channel of a batch entry: x behind its state.
template <class S>
struct ConvUpdateRow {
  const S* x;
  S* state;
  int64_t x_step, state_step, state_length;
  int64_t start;  // the place of the first new step in a ring; the state's length without one

  // A new input, or one that came before them.
  SUFFUSE_DEVICE S input(int64_t time) const {
    if (time >= 0) return x[time * x_step];
    const int64_t place = start + time;
    return state[(place >= 0 ? place : place + state_length) * state_step];
  }
};

template <class S>
SUFFUSE_DEVICE ConvNumber<S> conv_update_output(const CausalConv1dUpdateParams& p, int64_t channel,
                                                const ConvUpdateRow<S>& row, int64_t time) {
  using T = ConvNumber<S>;
  const T* weight = static_cast<const T*>(p.weight) + channel * p.width;
  T sum = p.bias ? static_cast<const T*>(p.bias)[channel] : T(0);
  for (int64_t k = 0; k < p.width; k++) {
    sum += weight[k] * widen(row.input(time - p.width + 1 + k));
  }
  return p.silu ? conv_silu(sum) : sum;
}

// The last steps take the places of the oldest, or all move up.
template <class S>
SUFFUSE_DEVICE void conv_update_state(const CausalConv1dUpdateParams& p,
                                      const ConvUpdateRow<S>& row) {
  const int64_t length = p.state_length;
  if (p.positions) {
    for (int64_t t = p.length < length ? 0 : p.length - length; t < p.length; t++) {
      row.state[(row.start + t) % length * row.state_step] = row.x[t * row.x_step];
    }
    return;
  }
  for (int64_t i = 0; i < length; i++) {
    row.state[i * row.state_step] = row.input(p.length + i - length);
  }
}

template <class S>
__global__ void __launch_bounds__(ConvShape::kAnyThreads, ConvShape::kUpdateBlocks)
    conv_update_kernel(const CausalConv1dUpdateParams p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= p.batch * p.channels) return;
  const int64_t batch = index / p.channels, channel = index - batch * p.channels;
  const int64_t slot = p.slots ? p.slots[batch] : batch;
  S* out = conv_row<S>(p.out, {batch, channel});
  if (slot < 0) {
    for (int64_t t = 0; t < p.length; t++) out[t * p.out.time] = narrow<S>(ConvNumber<S>(0));
    return;
  }
  int64_t start = p.state_length;
  if (p.positions && p.state_length > 0) {
    start = p.positions[batch] % p.state_length;
    if (start < 0) start += p.state_length;
  }
  const ConvUpdateRow<S> row = {conv_row<const S>(p.x, {batch, channel}),
                                conv_row<S>(p.state, {slot, channel}),
                                p.x.time,
                                p.state.time,
                                p.state_length,
                                start};
  for (int64_t t = 0; t < p.length; t++) {
    out[t * p.out.time] = narrow<S>(conv_update_output(p, channel, row, t));
  }
  conv_update_state(p, row);
}

}  // namespace suffuse
