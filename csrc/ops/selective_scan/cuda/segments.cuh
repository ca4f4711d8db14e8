// Time in segments, where channels alone do not fill a GPU: a first pass finds with what state each
// segment would end if it started from 0, and how much of a state before it would be left; from
// these follow the states that the segments start with.
#pragma once

#include "ops/selective_scan/cuda/kernel.cuh"

namespace suffuse {

// x of the recurrence that the first pass runs: forwards delta' u, backwards the gradient of y.
template <class S, bool kBackward>
SUFFUSE_DEVICE void load_driver(const SelectiveScanParams& p, const ScanRows& grad_out,
                                int64_t batch, int64_t channel, const Group& steps,
                                const float (&delta)[kQuad], float (&x)[kQuad]) {
  if constexpr (kBackward) {
    load_rows<S>(grad_out, batch, channel, steps, x);
    if (!p.z.data) return;
    float z[kQuad];
    load_rows<S>(p.z, batch, channel, steps, z);
#pragma unroll
    for (int i = 0; i < kQuad; i++) x[i] *= z[i] * sigmoid(z[i]);
  } else {
    load_rows<S>(p.u, batch, channel, steps, x);
#pragma unroll
    for (int i = 0; i < kQuad; i++) x[i] *= delta[i];
  }
}

template <class S, bool kBackward>
SUFFUSE_DEVICE void stage_drivers(const SelectiveScanParams& p, const ScanRows& grad_out,
                                  const ScanCut& cut, const ScanBlock& block,
                                  const ScanChannels& channels, int window, int count,
                                  const ScanTables& t, float* memory) {
  for_quads(count, cut.channels, [&](int k, int row, int quad) {
    float delta[kQuad] = {}, x[kQuad] = {};
    if (row < channels.count) {
      const Group steps = steps_of_quad(p, window + k, quad);
      const int64_t channel = channels.first + row;
      load_delta<S>(p, block.batch, channel, steps, delta);
      load_driver<S, kBackward>(p, grad_out, block.batch, channel, steps, delta, x);
    }
    const int at = k * cut.channels * kSteps;
    put_quad(memory + t.delta + at, row, quad, delta, p.reverse);
    put_quad(memory + t.x + at, row, quad, x, p.reverse);
  });
}

// Forwards h_i = a_i h_{i-1} + x_i b_i from the first step on; backwards h_i = a_i (h_{i+1} + x_i
// b_i) from the last one on.
template <bool kBackward>
SUFFUSE_DEVICE float drive_state(const float (&delta)[kSteps], const float (&x)[kSteps], float rate,
                                 float h, const ProjectionRow& row, uint32_t restarts) {
#pragma unroll
  for (int j = 0; j < kQuadsOfWindow; j++) {
    const int q = kBackward ? kQuadsOfWindow - 1 - j : j;
    const float4 b4 = row(q);
    const float b[] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
    for (int l = 0; l < kQuad; l++) {
      const int k = kBackward ? kQuad - 1 - l : l, i = q * kQuad + k;
      const float decay = gpu::exp2_approx(delta[i] * rate);
      const bool restart = restarts >> i & 1;
      if (kBackward) {
        h = restart ? 0.f : decay * fmaf(x[i], b[k], h);
      } else {
        h = fmaf(decay, restart ? 0.f : h, x[i] * b[k]);
      }
    }
  }
  return h;
}

// The first pass, over all segments but the one that nothing comes after.
template <class S, bool kBackward>
__global__ void __launch_bounds__(kScanThreads, 5)
    selective_scan_segments_kernel(const SelectiveScanParams p, const ScanCut cut,
                                   const ScanTables t, const ScanRows grad_out,
                                   const ScanSegments result) {
  float* const memory = gpu::shared<ScanMemory>().floats;
  const ScanBlock block(p, cut);
  if (block.segment == (kBackward ? 0 : cut.segments - 1)) return;
  const ScanProjection& projection = kBackward ? p.c : p.b;
  const ScanLane at(cut);
  for (int round = 0; round < cut.rounds; round++) {
    const ScanChannels channels(cut, block, round);
    if (channels.count <= 0) break;
    __syncthreads();  // the round before has read what is staged
    load_own(p.a, 0, p, cut, channels, memory + t.rate, kScanLog2e);
    load_own(projection.varying ? nullptr : projection.data, 0, p, cut, channels,
             memory + t.constant_b);
    load_own(nullptr, 0, p, cut, channels, memory + t.state);
    float total = 0.f;  // of delta'
    bool restarted = false;
    const int windows = block.last - block.first;
    for (int done = 0; done < windows; done += cut.windows) {
      const int count = min(cut.windows, windows - done);
      const int window = kBackward ? block.last - done - count : block.first + done;
      if (done > 0) __syncthreads();
      stage_drivers<S, kBackward>(p, grad_out, cut, block, channels, window, count, t, memory);
      stage_projection<S>(p, cut, projection, block, window, count, memory + t.b);
      stage_restarts(p, block.batch, window, count, memory + t.restarts);
      __syncthreads();
      for (int j = 0; j < count; j++) {
        const int k = kBackward ? count - 1 - j : j;
        float delta[kSteps], x[kSteps];
        get_window(memory + t.delta + k * cut.channels * kSteps, at.channel, delta);
        get_window(memory + t.x + k * cut.channels * kSteps, at.channel, x);
        const uint32_t restarts = gpu::load_vector<uint32_t>(memory + t.restarts + k);
        float sum = 0.f;
#pragma unroll
        for (int i = 0; i < kSteps; i++) sum += delta[i];
        total += sum;
        restarted = restarted || restarts;
#pragma unroll 1
        for (int s = 0; s < cut.states; s++) {
          const int own = s * kScanThreads + threadIdx.x;
          const ProjectionRow row(memory + t.b + k * scan_table_rows(cut) * kSteps,
                                  at.state(cut, s), projection.varying, memory[t.constant_b + own],
                                  memory + t.quad_b + kQuad * threadIdx.x);
          memory[t.state + own] = drive_state<kBackward>(delta, x, memory[t.rate + own],
                                                         memory[t.state + own], row, restarts);
        }
      }
    }
    const int64_t entry = block.segment * p.batch + block.batch;
    store_own(result.states, entry, p, cut, channels, memory + t.state);
    for (int s = 0; s < cut.states; s++) {
      float& rate = memory[t.rate + s * kScanThreads + threadIdx.x];
      rate = restarted ? -1.f : gpu::exp2_approx(total * rate);
    }
    store_own(result.factors, entry, p, cut, channels, memory + t.rate);
  }
}

// From the ends of the segments to their starts, a thread for each state. outer: the state before
// the first segment or, backwards, the gradient behind the last; null for 0.
template <bool kBackward>
__global__ void __launch_bounds__(kScanThreads)
    selective_scan_starts_kernel(const ScanSegments segments, int64_t count, int number,
                                 const float* outer) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  if (i >= count) return;
  float h = outer ? outer[i] : 0.f;
  for (int j = 0; j < number; j++) {
    const int64_t at = (kBackward ? number - 1 - j : j) * count + i;
    const bool last = j == number - 1;
    const float end = last ? 0.f : segments.states[at];
    const float factor = last ? 0.f : segments.factors[at];
    segments.states[at] = h;
    h = factor < 0.f ? end : fmaf(factor, h, end);
  }
}

}  // namespace suffuse
