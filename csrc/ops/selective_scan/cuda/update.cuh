// One step of the selective scan on CUDA: neighbouring lanes have neighbouring states of a channel.
#pragma once

#include "cuda/shuffle.cuh"
#include "ops/selective_scan/cuda/tile.cuh"
#include "ops/selective_scan/update_params.h"

namespace suffuse {

// Lanes of a channel, a power of two.
inline int32_t state_update_lanes(const StateUpdateParams& p) {
  int32_t lanes = 1;
  while (lanes < 32 && lanes < p.states) lanes *= 2;
  return lanes;
}

inline LaunchShape state_update_shape(const StateUpdateParams& p) {
  const int64_t channels = kScanThreads / state_update_lanes(p);
  const int64_t blocks = (p.heads * p.places + channels - 1) / channels;
  return {p.batch * blocks, kScanThreads, 0};
}

template <class S>
SUFFUSE_DEVICE float step_number(const StepRows& rows, int64_t batch, int64_t head, int64_t place) {
  const int64_t at = batch * rows.batch + head * rows.head + place * rows.place;
  return gpu::to_float(static_cast<const S*>(rows.data)[at]);
}
SUFFUSE_DEVICE float channel_number(const StepChannels& from, int64_t head, int64_t place) {
  if (!from.data) return 0.f;
  return static_cast<const float*>(from.data)[head * from.head + place * from.place];
}

// S: storage type of the call, T: of the state. All lanes of a warp stay to the end, for the sums.
template <class S, class T>
__global__ void __launch_bounds__(kScanThreads)
    selective_state_update_kernel(const StateUpdateParams p, int lanes) {
  const int of_block = kScanThreads / lanes, lane = threadIdx.x % lanes;
  const int64_t all = p.heads * p.places, blocks = (all + of_block - 1) / of_block;
  const int64_t batch = blockIdx.x / blocks;
  const int64_t channel = (blockIdx.x - batch * blocks) * of_block + threadIdx.x / lanes;
  const int64_t head = channel / p.places, place = channel - head * p.places;
  const bool there = channel < all;
  const int64_t slot = p.indices ? p.indices[batch] : batch;
  float sum = 0.f, x = 0.f;
  if (there && slot >= 0) {
    const int64_t group = channel / (all / p.groups);
    float step = step_number<S>(p.dt, batch, head, place) + channel_number(p.bias, head, place);
    if (p.softplus) step = softplus(step);
    x = step_number<S>(p.x, batch, head, place);
    T* const state = static_cast<T*>(p.state) + slot * p.state_slot + head * p.state_head +
                     place * p.state_place;
    const float* const a =
        static_cast<const float*>(p.a.data) + head * p.a.head + place * p.a.place;
    const S* const b = static_cast<const S*>(p.b.data) + batch * p.b.batch + group * p.b.group;
    const S* const c = static_cast<const S*>(p.c.data) + batch * p.c.batch + group * p.c.group;
    for (int n = lane; n < p.states; n += lanes) {
      const float decay = expf(step * a[n * p.a_state]);
      const float h = fmaf(decay, gpu::to_float(state[n]), step * x * gpu::to_float(b[n]));
      state[n] = gpu::from_float<T>(h);
      sum = fmaf(h, gpu::to_float(c[n]), sum);
    }
  }
  for (int d = 1; d < lanes; d *= 2) sum += shuffle_xor(sum, d);
  if (!there || lane != 0) return;
  float y = fmaf(channel_number(p.skip, head, place), x, sum);
  if (p.z.data && slot >= 0) {
    const float z = step_number<S>(p.z, batch, head, place);
    y *= z * sigmoid(z);
  }
  static_cast<S*>(p.out)[batch * all + channel] = gpu::from_float<S>(y);
}

// Calls fn(TypeTag<S>, TypeTag<T>); float64 has no kernel.
template <class Fn>
void visit_state_update(const StateUpdateParams& p, Fn&& fn) {
  visit_dtype(p.dtype, [&](auto tag) {
    visit_dtype(p.state_dtype, [&](auto state_tag) {
      constexpr bool kNarrow = sizeof(typename decltype(tag)::type) < 8 &&
                               sizeof(typename decltype(state_tag)::type) < 8;
      if constexpr (kNarrow) fn(tag, state_tag);
    });
  });
}

}  // namespace suffuse
