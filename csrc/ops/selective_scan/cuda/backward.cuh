// selective_scan backward on CUDA: windows from the last to the first; in each, the states are made
// again in registers from the one saved before it, one state of a lane at a time.
//
// With g_t = dL/dy_t, e_t = dL/dh_t and a_t = exp(delta'_t A):
//   e_t = C_t g_t + a_{t+1} e_{t+1},  dC_t = g_t h_t,  dB_t = e_t delta'_t u_t,
//   dA = sum e_t a_t h_{t-1} delta'_t,  d(delta'_t) = sum_n e_t (a_t h_{t-1} A + B_t u_t)
#pragma once

#include "ops/selective_scan/cuda/window_sums.cuh"

namespace suffuse {

constexpr float kScanLn2 = 0.6931471805599453f;

// Of a window: delta', u, the gradient of y (before the gate); and dz, which is a result.
template <class S>
SUFFUSE_DEVICE void stage_gradients(const SelectiveScanGradParams& g, const ScanCut& cut,
                                    const ScanBlock& block, const ScanChannels& channels,
                                    int window, const ScanGradTables& t, float* memory) {
  const SelectiveScanParams& p = g.forward;
  for_quads(1, cut.channels, [&](int, int row, int quad) {
    float delta[kQuad] = {}, u[kQuad] = {}, grad[kQuad] = {};
    if (row < channels.count) {
      const Group steps = steps_of_quad(p, window, quad);
      const int64_t channel = channels.first + row;
      load_delta<S>(p, block.batch, channel, steps, delta);
      load_rows<S>(p.u, block.batch, channel, steps, u);
      load_rows<S>(g.grad_out, block.batch, channel, steps, grad);
      if (p.z.data) {
        float z[kQuad], y[kQuad], to_z[kQuad];
        const int64_t at = (block.batch * p.channels + channel) * p.length;
        load_rows<S>(p.z, block.batch, channel, steps, z);
        load_steps(static_cast<const S*>(p.ungated) + at, 1, steps, y);
#pragma unroll
        for (int i = 0; i < kQuad; i++) {
          const float s = sigmoid(z[i]), gate = z[i] * s;
          to_z[i] = grad[i] * y[i] * fmaf(gate, 1.f - s, s);
          grad[i] *= gate;
        }
        store_group(static_cast<S*>(g.grad_z) + at, steps, to_z);
      }
    }
    put_quad(memory + t.delta, row, quad, delta, p.reverse);
    put_quad(memory + t.u, row, quad, u, p.reverse);
    put_quad(memory + t.grad, row, quad, grad, p.reverse);
  });
}

// What a thread keeps of its channel through all states of a window: in registers, for shared
// memory is what limits the kernel.
struct WindowGradients {
  float delta[kSteps], x[kSteps], grad[kSteps];
  float to_both[2 * kSteps];  // d(delta' u) of the steps, then d(delta') of the steps / ln 2
};

// One state of a window. v is left with dB of the steps, then dC.
template <bool kRestarts>
SUFFUSE_DEVICE void state_backward(WindowGradients& w, float (&v)[2 * kSteps], float rate,
                                   float start, float& carry, float& grad_a,
                                   const ProjectionRow& b_row, const ProjectionRow& c_row,
                                   uint32_t restarts) {
  float h = start;
#pragma unroll
  for (int q = 0; q < kQuadsOfWindow; q++) {
    const float4 b4 = b_row(q);
    const float b[] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
    for (int k = 0; k < kQuad; k++) {
      const int i = q * kQuad + k;
      if (kRestarts && (restarts >> i & 1)) h = 0.f;
      v[i] = gpu::exp2_approx(w.delta[i] * rate);
      v[kSteps + i] = h = fmaf(v[i], h, w.x[i] * b[k]);
    }
  }
#pragma unroll
  for (int q = kQuadsOfWindow - 1; q >= 0; q--) {
    const float4 b4 = b_row(q), c4 = c_row(q);
    const float b[] = {b4.x, b4.y, b4.z, b4.w}, c[] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
    for (int k = kQuad - 1; k >= 0; k--) {
      const int i = q * kQuad + k;
      const bool restart = kRestarts && (restarts >> i & 1);
      float before = i > 0 ? v[kSteps + i - 1] : start;
      if (restart) before = 0.f;
      const float e = fmaf(w.grad[i], c[k], carry);
      carry = e * v[i];
      const float through = carry * before;
      v[i] = e * w.x[i];
      v[kSteps + i] *= w.grad[i];
      w.to_both[i] = fmaf(e, b[k], w.to_both[i]);
      w.to_both[kSteps + i] = fmaf(through, rate, w.to_both[kSteps + i]);
      grad_a = fmaf(through, w.delta[i], grad_a);
      if (restart) carry = 0.f;
    }
  }
}

// dB and dC of constant B and C: the sums over a window's steps.
SUFFUSE_DEVICE void add_constant(const float* v, float& sum) {
#pragma unroll
  for (int i = 0; i < kSteps; i++) sum += v[i];
}

// All states of the block's channels through a window.
SUFFUSE_DEVICE void window_backward(const SelectiveScanGradParams& g, const ScanCut& cut,
                                    const ScanBlock& block, int round, int window,
                                    const ScanGradTables& t, float* memory) {
  const SelectiveScanParams& p = g.forward;
  const ScanLane at(cut);
  const bool varying = p.b.varying || p.c.varying;
  const uint32_t restarts = gpu::load_vector<uint32_t>(memory + t.restarts);
  const bool restart = __any_sync(0xffffffffu, restarts);  // the compiler sees: no lane diverges
  WindowGradients w;
  get_window(memory + t.grad, at.channel, w.grad);
  get_window(memory + t.delta, at.channel, w.delta);
  get_window(memory + t.u, at.channel, w.x);
#pragma unroll
  for (int i = 0; i < kSteps; i++) {
    w.x[i] *= w.delta[i];
    w.to_both[i] = w.to_both[kSteps + i] = 0.f;
  }
#pragma unroll 1
  for (int s = 0; s < cut.states; s++) {
    const int own = s * kScanThreads + threadIdx.x, state = at.state(cut, s);
    const ProjectionRow b(memory + t.b, state, p.b.varying, memory[t.constant_b + own],
                          memory + t.quad_b + kQuad * threadIdx.x);
    const ProjectionRow c(memory + t.c, state, p.c.varying, memory[t.constant_c + own],
                          memory + t.quad_c + kQuad * threadIdx.x);
    const float rate = memory[t.rate + own], start = memory[t.start + own];
    float carry = memory[t.carry + own], grad_a = memory[t.grad_a + own];
    float v[2 * kSteps];
    if (restart) {
      state_backward<true>(w, v, rate, start, carry, grad_a, b, c, restarts);
    } else {
      state_backward<false>(w, v, rate, start, carry, grad_a, b, c, 0);
    }
    memory[t.carry + own] = carry;
    memory[t.grad_a + own] = grad_a;
    if (!p.b.varying) add_constant(v, memory[t.grad_b + own]);
    if (!p.c.varying) add_constant(v + kSteps, memory[t.grad_c + own]);
    if (!varying) continue;
    put_sums(cut, v, memory + t.sums);
    __syncthreads();
    take_sums(g, cut, block, round, window, s, memory + t.sums);
    __syncthreads();
  }
  put_window_sums(cut, w.to_both, t, memory);
}

// du and ddelta of a window, and what it adds to dD and dbias.
template <class S>
SUFFUSE_DEVICE void finish_window(const SelectiveScanGradParams& g, const ScanCut& cut,
                                  const ScanBlock& block, const ScanChannels& channels, int window,
                                  const ScanGradTables& t, float* memory) {
  const SelectiveScanParams& p = g.forward;
  const int rows = max(cut.channels, 32 / kQuadsOfWindow);  // whole warps
  for_quads(1, rows, [&](int, int row, int quad) {
    float delta[kQuad] = {}, u[kQuad] = {}, grad[kQuad] = {}, to_x[kQuad] = {},
          to_delta[kQuad] = {};
    if (row < cut.channels) {
      get_quad(memory + t.delta, row, quad, delta, p.reverse);
      get_quad(memory + t.u, row, quad, u, p.reverse);
      get_quad(memory + t.grad, row, quad, grad, p.reverse);
      get_quad(memory + t.to_x, row, quad, to_x, p.reverse);
      get_quad(memory + t.to_delta, row, quad ^ 1, to_delta, p.reverse);
    }
    const Group steps = steps_of_quad(p, window, quad);
    const bool there = row < channels.count;
    const int64_t channel = channels.first + row;
    const float skip = there && p.skip ? static_cast<const float*>(p.skip)[channel] : 0.f;
    float to_u[kQuad], skip_sum = 0.f, bias_sum = 0.f;
#pragma unroll
    for (int i = 0; i < kQuad; i++) {
      float d = fmaf(to_delta[i], kScanLn2, to_x[i] * u[i]);
      if (p.softplus) d *= -expm1f(-delta[i]);  // 1 - e^-softplus(x) is the sigmoid of x
      to_u[i] = fmaf(to_x[i], delta[i], grad[i] * skip);
      skip_sum = fmaf(grad[i], u[i], skip_sum);
      bias_sum += i < steps.last ? d : 0.f;
      to_delta[i] = d;
    }
    // The four quads of a row are neighbouring lanes.
    skip_sum += shuffle_xor(skip_sum, 1);
    bias_sum += shuffle_xor(bias_sum, 1);
    skip_sum += shuffle_xor(skip_sum, 2);
    bias_sum += shuffle_xor(bias_sum, 2);
    if (quad == 0 && there) {
      memory[t.grad_skip + row] += skip_sum;
      memory[t.grad_bias + row] += bias_sum;
    }
    if (!there) return;
    const int64_t at = (block.batch * p.channels + channel) * p.length;
    store_group(static_cast<S*>(g.grad_u) + at, steps, to_u);
    store_group(static_cast<S*>(g.grad_delta) + at, steps, to_delta);
  });
}

// Starts from the gradient behind the segment: ends, or that of the last state where there is one
// segment.
SUFFUSE_DEVICE void begin_round(const SelectiveScanGradParams& g, const ScanCut& cut,
                                const ScanBlock& block, const ScanChannels& channels,
                                const float* ends, const ScanGradTables& t, float* memory) {
  const SelectiveScanParams& p = g.forward;
  load_constants(p, cut, channels, memory + t.rate, memory + t.constant_b, memory + t.constant_c);
  const int64_t entry = ends ? block.segment * p.batch + block.batch : block.batch;
  load_own(ends ? ends : g.grad_last, entry, p, cut, channels, memory + t.carry);
  load_own(nullptr, 0, p, cut, channels, memory + t.grad_a);
  load_own(nullptr, 0, p, cut, channels, memory + t.grad_b);
  load_own(nullptr, 0, p, cut, channels, memory + t.grad_c);
  for_quads(1, cut.channels, [&](int, int row, int quad) {
    if (quad == 0) memory[t.grad_skip + row] = memory[t.grad_bias + row] = 0.f;
  });
}

SUFFUSE_DEVICE void end_round(const SelectiveScanGradParams& g, const ScanCut& cut,
                              const ScanBlock& block, const ScanChannels& channels,
                              const ScanGradTables& t, float* memory) {
  const SelectiveScanParams& p = g.forward;
  const int64_t row = block.segment * p.batch + block.batch;
  store_own(g.sums_a, row, p, cut, channels, memory + t.grad_a);
  if (!p.b.varying) store_own(g.sums_b, row, p, cut, channels, memory + t.grad_b);
  if (!p.c.varying) store_own(g.sums_c, row, p, cut, channels, memory + t.grad_c);
  if (block.segment == 0) {
    store_own(g.grad_initial, block.batch, p, cut, channels, memory + t.carry);
  }
  for_quads(1, cut.channels, [&](int, int channel, int quad) {
    if (quad != 0 || channel >= channels.count) return;
    const int64_t at = row * p.channels + channels.first + channel;
    static_cast<float*>(g.sums_skip)[at] = memory[t.grad_skip + channel];
    static_cast<float*>(g.sums_bias)[at] = memory[t.grad_bias + channel];
  });
}

// ends: the gradients behind the segments; null where there is one.
template <class S>
__global__ void __launch_bounds__(kScanThreads, 2)
    selective_scan_backward_kernel(const SelectiveScanGradParams g, const ScanCut cut,
                                   const ScanGradTables t, const float* ends) {
  float* const memory = gpu::shared<ScanMemory>().floats;
  const SelectiveScanParams& p = g.forward;
  const ScanBlock block(p, cut);
  for (int round = 0; round < cut.rounds; round++) {
    const ScanChannels channels(cut, block, round);
    if (channels.count <= 0) break;
    begin_round(g, cut, block, channels, ends, t, memory);
    for (int window = block.last - 1; window >= block.first; window--) {
      stage_gradients<S>(g, cut, block, channels, window, t, memory);
      stage_projection<S>(p, cut, p.b, block, window, 1, memory + t.b);
      stage_projection<S>(p, cut, p.c, block, window, 1, memory + t.c);
      stage_restarts(p, block.batch, window, 1, memory + t.restarts);
      load_own(p.chunk_states, block.batch * scan_windows(p) + window, p, cut, channels,
               memory + t.start);
      __syncthreads();
      window_backward(g, cut, block, round, window, t, memory);
      __syncthreads();
      finish_window<S>(g, cut, block, channels, window, t, memory);
    }
    end_round(g, cut, block, channels, t, memory);
  }
}

}  // namespace suffuse
