// selective_scan on CUDA. A thread walks through time, so that the recurrence costs one
// multiply-add a state and no exchange between lanes; what a window gives is added up over the
// lanes of a channel once.
#pragma once

#include "ops/selective_scan/cuda/tile.cuh"

namespace suffuse {

constexpr float kScanLog2e = 1.4426950408889634f;

// A tile's delta', delta' u and skip u.
template <class S>
SUFFUSE_DEVICE void stage_inputs(const SelectiveScanParams& p, const ScanCut& cut,
                                 const ScanBlock& block, const ScanChannels& channels, int window,
                                 int count, const ScanTables& t, float* memory) {
  for_quads(count, cut.channels, [&](int k, int row, int quad) {
    float delta[kQuad] = {}, x[kQuad] = {}, y[kQuad] = {};
    if (row < channels.count) {
      const Group steps = steps_of_quad(p, window + k, quad);
      const int64_t channel = channels.first + row;
      const float skip = p.skip ? static_cast<const float*>(p.skip)[channel] : 0.f;
      load_delta<S>(p, block.batch, channel, steps, delta);
      load_rows<S>(p.u, block.batch, channel, steps, x);
#pragma unroll
      for (int i = 0; i < kQuad; i++) {
        y[i] = skip * x[i];
        x[i] *= delta[i];
      }
    }
    const int at = k * cut.channels * kSteps;
    put_quad(memory + t.delta + at, row, quad, delta, p.reverse);
    put_quad(memory + t.x + at, row, quad, x, p.reverse);
    put_quad(memory + t.y + at, row, quad, y, p.reverse);
  });
}

// The gate, and the results of a tile.
template <class S>
SUFFUSE_DEVICE void store_outputs(const SelectiveScanParams& p, const ScanCut& cut,
                                  const ScanBlock& block, const ScanChannels& channels, int window,
                                  int count, const float* y_rows) {
  for_quads(count, cut.channels, [&](int k, int row, int quad) {
    if (row >= channels.count) return;
    float y[kQuad], z[kQuad];
    get_quad(y_rows + k * cut.channels * kSteps, row, quad, y, p.reverse);
    const Group steps = steps_of_quad(p, window + k, quad);
    const int64_t channel = channels.first + row;
    const int64_t at = (block.batch * p.channels + channel) * p.length;
    if (p.z.data) {
      load_rows<S>(p.z, block.batch, channel, steps, z);
      if (p.ungated) store_group(static_cast<S*>(p.ungated) + at, steps, y);
#pragma unroll
      for (int i = 0; i < kQuad; i++) y[i] *= z[i] * sigmoid(z[i]);
    }
    store_group(static_cast<S*>(p.out) + at, steps, y);
  });
}

// One state through a window; y += C h.
template <bool kRestarts>
SUFFUSE_DEVICE float scan_state(const float (&delta)[kSteps], const float (&x)[kSteps],
                                float (&y)[kSteps], float rate, float h, const ProjectionRow& b_row,
                                const ProjectionRow& c_row, uint32_t restarts) {
#pragma unroll
  for (int q = 0; q < kQuadsOfWindow; q++) {
    const float4 b4 = b_row(q), c4 = c_row(q);
    const float b[] = {b4.x, b4.y, b4.z, b4.w}, c[] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
    for (int k = 0; k < kQuad; k++) {
      const int i = q * kQuad + k;
      if (kRestarts && (restarts >> i & 1)) h = 0.f;
      h = fmaf(gpu::exp2_approx(delta[i] * rate), h, x[i] * b[k]);
      y[i] = fmaf(h, c[k], y[i]);
    }
  }
  return h;
}

// Adds a lane's share of a window's y, as add_lanes leaves it, to the row.
SUFFUSE_DEVICE void add_to_row(float* table, int row, const float (&v)[kSteps], int share,
                               int width) {
  float* const at = table + quad_place(row, share / kQuad) + share % kQuad;
  if (width >= kQuad) {
#pragma unroll
    for (int i = 0; i < kSteps; i += kQuad) {
      if (i >= width) break;
      float* const place = table + quad_place(row, share / kQuad + i / kQuad);
      float4 sum = gpu::load_vector<float4>(place);
      sum = {sum.x + v[i], sum.y + v[i + 1], sum.z + v[i + 2], sum.w + v[i + 3]};
      gpu::store_vector(place, sum);
    }
  } else if (width == 2) {
    const float2 sum = gpu::load_vector<float2>(at);
    gpu::store_vector(at, float2{sum.x + v[0], sum.y + v[1]});
  } else {
    *at += v[0];
  }
}

// A block's states through a window that is staged.
SUFFUSE_DEVICE void scan_window(const SelectiveScanParams& p, const ScanCut& cut,
                                const ScanBlock& block, const ScanChannels& channels, int window,
                                int k, const ScanTables& t, float* memory) {
  const ScanLane at(cut);
  const int rows = k * cut.channels * kSteps, tables = k * scan_table_rows(cut) * kSteps;
  const uint32_t restarts = gpu::load_vector<uint32_t>(memory + t.restarts + k);
  const bool restart = __any_sync(0xffffffffu, restarts);  // the compiler sees: no lane diverges
  float delta[kSteps], x[kSteps], y[kSteps] = {};
  get_window(memory + t.delta + rows, at.channel, delta);
  get_window(memory + t.x + rows, at.channel, x);
  float* const saved = static_cast<float*>(p.chunk_states) +
                       (block.batch * scan_windows(p) + window) * p.channels * p.states;
#pragma unroll 1
  for (int s = 0; s < cut.states; s++) {
    const int own = s * kScanThreads + threadIdx.x, state = at.state(cut, s);
    const ProjectionRow b(memory + t.b + tables, state, p.b.varying, memory[t.constant_b + own],
                          memory + t.quad_b + kQuad * threadIdx.x);
    const ProjectionRow c(memory + t.c + tables, state, p.c.varying, memory[t.constant_c + own],
                          memory + t.quad_c + kQuad * threadIdx.x);
    const float rate = memory[t.rate + own], h = memory[t.state + own];
    if (p.chunk_states && at.has(p, cut, channels, s)) saved[at.index(p, cut, channels, s)] = h;
    memory[t.state + own] = restart ? scan_state<true>(delta, x, y, rate, h, b, c, restarts)
                                    : scan_state<false>(delta, x, y, rate, h, b, c, 0);
  }
  const int share = add_lanes(y, 1, cut.lanes);
  if (at.lane < kSteps)
    add_to_row(memory + t.y + rows, at.channel, y, share, kSteps >> cut.lane_bits);
}

// A matrix [channel, state] for this thread's states; `batch`: entries before it.
SUFFUSE_DEVICE void load_own(const void* from, int64_t batch, const SelectiveScanParams& p,
                             const ScanCut& cut, const ScanChannels& channels, float* own,
                             float factor = 1.f) {
  const ScanLane at(cut);
  const float* const data = static_cast<const float*>(from) + batch * p.channels * p.states;
#pragma unroll 1
  for (int s = 0; s < cut.states; s++) {
    const bool has = from && at.has(p, cut, channels, s);
    own[s * kScanThreads + threadIdx.x] = has ? factor * data[at.index(p, cut, channels, s)] : 0.f;
  }
}
SUFFUSE_DEVICE void store_own(void* to, int64_t batch, const SelectiveScanParams& p,
                              const ScanCut& cut, const ScanChannels& channels, const float* own) {
  const ScanLane at(cut);
  float* const data = static_cast<float*>(to) + batch * p.channels * p.states;
#pragma unroll 1
  for (int s = 0; s < cut.states; s++) {
    if (!at.has(p, cut, channels, s)) continue;
    data[at.index(p, cut, channels, s)] = own[s * kScanThreads + threadIdx.x];
  }
}

SUFFUSE_DEVICE void load_constants(const SelectiveScanParams& p, const ScanCut& cut,
                                   const ScanChannels& channels, float* rate, float* constant_b,
                                   float* constant_c) {
  load_own(p.a, 0, p, cut, channels, rate, kScanLog2e);
  load_own(p.b.varying ? nullptr : p.b.data, 0, p, cut, channels, constant_b);
  load_own(p.c.varying ? nullptr : p.c.data, 0, p, cut, channels, constant_c);
}

// starts: the states that segments start with; null where there is one segment.
template <class S>
__global__ void __launch_bounds__(kScanThreads, 4)
    selective_scan_kernel(const SelectiveScanParams p, const ScanCut cut, const ScanTables t,
                          const float* starts) {
  float* const memory = gpu::shared<ScanMemory>().floats;
  const ScanBlock block(p, cut);
  const ScanChannels channels(cut, block, 0);
  load_constants(p, cut, channels, memory + t.rate, memory + t.constant_b, memory + t.constant_c);
  const int64_t entry = starts ? block.segment * p.batch + block.batch : block.batch;
  load_own(starts ? starts : p.initial, entry, p, cut, channels, memory + t.state);
  for (int window = block.first; window < block.last; window += cut.windows) {
    const int count = min(cut.windows, block.last - window);
    stage_inputs<S>(p, cut, block, channels, window, count, t, memory);
    stage_projection<S>(p, cut, p.b, block, window, count, memory + t.b);
    stage_projection<S>(p, cut, p.c, block, window, count, memory + t.c);
    stage_restarts(p, block.batch, window, count, memory + t.restarts);
    __syncthreads();
    for (int k = 0; k < count; k++) {
      scan_window(p, cut, block, channels, window + k, k, t, memory);
    }
    __syncthreads();
    store_outputs<S>(p, cut, block, channels, window, count, memory + t.y);
  }
  if (block.segment == cut.segments - 1) {
    store_own(p.last, block.batch, p, cut, channels, memory + t.state);
  }
}

}  // namespace suffuse
