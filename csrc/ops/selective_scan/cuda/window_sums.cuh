// The sums that a window of the backward scan leaves: dB and dC over channels, d(delta' u) and
// d(delta') over states.
#pragma once

#include "ops/selective_scan/cuda/kernel.cuh"

namespace suffuse {

// Where in a lane's row of sums, of 8 quads, a quad is: neighbouring rows change places as in
// quad_place.
SUFFUSE_DEVICE int sum_place(int lane, int quad) {
  return lane * 2 * kSteps + (quad ^ (lane & 7)) * kQuad;
}

// Adds up a state's dB and dC over the channels of each warp, into shared memory.
SUFFUSE_DEVICE void put_sums(const ScanCut& cut, float (&v)[2 * kSteps], float* sums) {
  const ScanLane at(cut);
  const int share = add_lanes(v, cut.lanes, 32 >> cut.lane_bits);
  float* const mine = sums + gpu::warp() * cut.lanes * 2 * kSteps;
  if (cut.lanes == 1) {
    mine[sum_place(0, share / kQuad) + share % kQuad] = v[0];
    return;
  }
#pragma unroll
  for (int i = 0; i < 2 * kSteps; i += kQuad) {  // a share is as long as a channel has lanes
    if (i >= cut.lanes) break;
    gpu::store_vector(mine + sum_place(at.lane, share / kQuad + i / kQuad),
                      float4{v[i], v[i + 1], v[i + 2], v[i + 3]});
  }
}

// Adds those of all warps to the part's dB and dC, which the same thread has written in the rounds
// before.
SUFFUSE_DEVICE void take_sums(const SelectiveScanGradParams& g, const ScanCut& cut,
                              const ScanBlock& block, int round, int window, int s,
                              const float* sums) {
  const SelectiveScanParams& p = g.forward;
  const int64_t windows = scan_windows(p), steps = windows * kSteps;
  const int64_t pair = block.batch * p.groups + block.group;
  const int64_t time = (p.reverse ? windows - 1 - window : window) * kSteps;
  const int64_t part = (pair * cut.parts + block.part) * p.states * steps + time;
#pragma unroll 1
  for (int i = threadIdx.x; i < cut.lanes * 2 * kSteps; i += kScanThreads) {
    const int lane = i / (2 * kSteps), state = s * cut.lanes + lane;
    const int from = i % (2 * kSteps), of_c = from / kSteps;
    const int step = p.reverse ? kSteps - 1 - from % kSteps : from % kSteps;
    if (state >= p.states || !(of_c ? p.c : p.b).varying) continue;
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < kScanWarps; w++) {
      sum += sums[w * cut.lanes * 2 * kSteps + sum_place(lane, from / kQuad) + from % kQuad];
    }
    float& to = static_cast<float*>(of_c ? g.sums_c : g.sums_b)[part + state * steps + step];
    to = round == 0 ? sum : to + sum;
  }
}

// Adds up d(delta' u) and d(delta') over the lanes of a channel. The two rows of a channel lie in
// different banks: `to_delta` starts half a line later, and its quads change places in pairs.
SUFFUSE_DEVICE void put_window_sums(const ScanCut& cut, float (&v)[2 * kSteps],
                                    const ScanGradTables& t, float* memory) {
  const int channel = ScanLane(cut).channel;
  const int share = add_lanes(v, 1, cut.lanes), width = 2 * kSteps >> cut.lane_bits;
  const auto place = [&](int sum) {
    const int quad = sum % kSteps / kQuad;
    return memory + sum % kQuad +
           (sum < kSteps ? t.to_x + quad_place(channel, quad)
                         : t.to_delta + quad_place(channel, quad ^ 1));
  };
  if (width == 1) {
    *place(share) = v[0];
  } else if (width == 2) {
    gpu::store_vector(place(share), float2{v[0], v[1]});
  } else {
#pragma unroll
    for (int i = 0; i < 2 * kSteps; i += kQuad) {
      if (i >= width) break;
      gpu::store_vector(place(share + i), float4{v[i], v[i + 1], v[i + 2], v[i + 3]});
    }
  }
}

}  // namespace suffuse
