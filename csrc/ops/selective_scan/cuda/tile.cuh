// Windows of rows and tables in shared memory, in the order of the scan, and what a block of the
// scan kernels works on.
#pragma once

#include "cuda/groups.cuh"
#include "cuda/shuffle.cuh"
#include "ops/selective_scan/cuda/config.h"

namespace suffuse {

constexpr int kSteps = kScanSteps;  // of a window
constexpr int kQuad = 4, kQuadsOfWindow = kSteps / kQuad;

// All shared memory of a kernel: tables of floats at offsets that depend on the cut.
struct ScanMemory {
  float floats[1];
};

struct ScanBlock {
  int batch, group, segment, part;
  int first, last;  // windows, in the order of the scan

  SUFFUSE_DEVICE ScanBlock(const SelectiveScanParams& p, const ScanCut& cut) {
    const uint32_t segments = cut.segments, parts = cut.parts, groups = p.groups;
    uint32_t index = blockIdx.x;
    segment = index % segments;
    index /= segments;
    part = index % parts;
    index /= parts;
    group = index % groups;
    batch = index / groups;
    const uint32_t windows = scan_windows(p), each = windows / segments, more = windows % segments;
    first = segment * each + (segment < more ? segment : more);
    last = first + each + (segment < more ? 1 : 0);
  }
};

// The channels [first, first + count) that a block takes together.
struct ScanChannels {
  int64_t first;
  int count;  // <= 0: none

  SUFFUSE_DEVICE ScanChannels(const ScanCut& cut, const ScanBlock& block, int round) {
    const int within = (block.part * cut.rounds + round) * cut.channels;
    first = static_cast<int64_t>(block.group) * cut.of_group + within;
    count = min(cut.of_group - within, cut.channels);
  }
};

// Where this thread's states are in tensors [channel, state].
struct ScanLane {
  int channel, lane;  // of the block's channels, of the channel

  SUFFUSE_DEVICE explicit ScanLane(const ScanCut& cut) {
    channel = threadIdx.x >> cut.lane_bits;
    lane = threadIdx.x & (cut.lanes - 1);
  }
  SUFFUSE_DEVICE int state(const ScanCut& cut, int s) const { return s * cut.lanes + lane; }
  SUFFUSE_DEVICE bool has(const SelectiveScanParams& p, const ScanCut& cut,
                          const ScanChannels& channels, int s) const {
    return channel < channels.count && state(cut, s) < p.states;
  }
  SUFFUSE_DEVICE int64_t index(const SelectiveScanParams& p, const ScanCut& cut,
                               const ScanChannels& channels, int s) const {
    return (channels.first + channel) * p.states + state(cut, s);
  }
};

// Where in a table of rows of one window a quad of steps lies: rows change the places of their
// quads, so that 8 lanes that have neighbouring rows, or neighbouring quads, touch each bank once.
SUFFUSE_DEVICE int quad_turn(int row) { return row >> 1 & 3; }
SUFFUSE_DEVICE int quad_place(int row, int quad) {
  return row * kSteps + (quad ^ quad_turn(row)) * kQuad;
}

// Shared memory has the order of the scan, registers that of time.
SUFFUSE_DEVICE void put_quad(float* table, int row, int quad, const float (&v)[kQuad],
                             bool reverse) {
  const float4 value = reverse ? float4{v[3], v[2], v[1], v[0]} : float4{v[0], v[1], v[2], v[3]};
  gpu::store_vector(table + quad_place(row, quad), value);
}
SUFFUSE_DEVICE void get_quad(const float* table, int row, int quad, float (&v)[kQuad],
                             bool reverse) {
  const float4 value = gpu::load_vector<float4>(table + quad_place(row, quad));
  v[0] = reverse ? value.w : value.x;
  v[1] = reverse ? value.z : value.y;
  v[2] = reverse ? value.y : value.z;
  v[3] = reverse ? value.x : value.w;
}

// A row of a window in registers.
SUFFUSE_DEVICE void get_window(const float* table, int row, float (&v)[kSteps]) {
#pragma unroll
  for (int q = 0; q < kQuadsOfWindow; q++) {
    const float4 value = gpu::load_vector<float4>(table + quad_place(row, q));
    v[4 * q] = value.x;
    v[4 * q + 1] = value.y;
    v[4 * q + 2] = value.z;
    v[4 * q + 3] = value.w;
  }
}

// The steps of a quad, in time; those in the sequence are [e, e + last).
SUFFUSE_DEVICE Group steps_of_quad(const SelectiveScanParams& p, int64_t window, int quad) {
  const int64_t w = p.reverse ? scan_windows(p) - 1 - window : window;
  const int64_t t = w * kSteps + kQuad * (p.reverse ? kQuadsOfWindow - 1 - quad : quad);
  return {t, 0, p.length - t < kQuad ? static_cast<int>(p.length - t) : kQuad};
}

// Those of a row with that distance between steps; 0 outside of the sequence.
template <class S>
SUFFUSE_DEVICE void load_steps(const S* row, int64_t time, const Group& steps, float (&v)[kQuad]) {
  if (time == 1) {
    load_group(row, steps, v);
  } else {
#pragma unroll
    for (int k = 0; k < kQuad; k++) {
      v[k] = k < steps.last ? gpu::to_float(row[(steps.e + k) * time]) : 0.f;
    }
  }
}
template <class S>
SUFFUSE_DEVICE void load_rows(const ScanRows& rows, int64_t batch, int64_t channel,
                              const Group& steps, float (&v)[kQuad]) {
  const S* data = static_cast<const S*>(rows.data) + batch * rows.batch + channel * rows.channel;
  load_steps(data, rows.time, steps, v);
}

// Calls fn(window, row, quad) for this thread's share of all quads: neighbouring lanes have
// neighbouring quads. The same thread has the same quads in every call.
template <class Fn>
SUFFUSE_DEVICE void for_quads(int windows, int rows, Fn&& fn) {
  for (uint32_t i = threadIdx.x; i < uint32_t(windows * rows * kQuadsOfWindow); i += kScanThreads) {
    const uint32_t row = i / kQuadsOfWindow;
    fn(row / rows, row % rows, i % kQuadsOfWindow);
  }
}

SUFFUSE_DEVICE float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }
SUFFUSE_DEVICE float sigmoid(float x) { return gpu::reciprocal_approx(1.f + expf(-x)); }

// delta' of a quad; 0 outside of the sequence, where nothing then changes.
template <class S>
SUFFUSE_DEVICE void load_delta(const SelectiveScanParams& p, int64_t batch, int64_t channel,
                               const Group& steps, float (&delta)[kQuad]) {
  load_rows<S>(p.delta, batch, channel, steps, delta);
  const float bias = p.bias ? static_cast<const float*>(p.bias)[channel] : 0.f;
#pragma unroll
  for (int k = 0; k < kQuad; k++) {
    const float x = delta[k] + bias;
    delta[k] = k >= steps.last ? 0.f : p.softplus ? softplus(x) : x;
  }
}

// Windows of a varying B or C; states beyond the last are 0.
template <class S>
SUFFUSE_DEVICE void stage_projection(const SelectiveScanParams& p, const ScanCut& cut,
                                     const ScanProjection& from, const ScanBlock& block, int window,
                                     int count, float* table) {
  if (!from.varying) return;
  const int rows = scan_table_rows(cut);
  const S* data =
      static_cast<const S*>(from.data) + block.batch * from.batch + block.group * from.group;
  for_quads(count, rows, [&](int k, int row, int quad) {
    float v[kQuad] = {};
    const Group steps = steps_of_quad(p, window + k, quad);
    if (row < p.states) load_steps(data + row * from.state, from.time, steps, v);
    put_quad(table + k * rows * kSteps, row, quad, v, p.reverse);
  });
}

// Bit i of masks[k]: the state restarts before step i of window `window` + k.
SUFFUSE_DEVICE void stage_restarts(const SelectiveScanParams& p, int64_t batch, int window,
                                   int count, float* masks) {
  if (gpu::warp() != 0) return;
  const int lane = gpu::lane(), windows = static_cast<int>(scan_windows(p));
  for (int k = 0; k < count; k++) {
    bool restart = false;
    if (p.sequence && lane < kSteps) {
      const int w = p.reverse ? windows - 1 - window - k : window + k;
      const int64_t t = static_cast<int64_t>(w) * kSteps + (p.reverse ? kSteps - 1 - lane : lane);
      const int64_t before = p.reverse ? t + 1 : t - 1;
      const int32_t* index = p.sequence + batch * p.length;
      restart = t < p.length && before >= 0 && before < p.length && index[t] != index[before];
    }
    const uint32_t mask = __ballot_sync(0xffffffffu, restart);
    if (lane == 0) gpu::store_vector(masks + k, mask);
  }
}

// A row of B or C for one state: staged, or one quad of a constant that stands for all.
class ProjectionRow {
 public:
  // own: where this thread keeps the quad.
  SUFFUSE_DEVICE ProjectionRow(const float* table, int row, bool varying, float constant,
                               float* own)
      : base_(varying ? table + row * kSteps : own),
        turn_(varying ? quad_turn(row) * kQuad : 0),
        mask_(varying ? -1 : 0) {
    if (!varying) gpu::store_vector(own, float4{constant, constant, constant, constant});
  }

  SUFFUSE_DEVICE float4 operator()(int quad) const {
    return gpu::load_vector<float4>(base_ + ((quad * kQuad ^ turn_) & mask_));
  }

 private:
  const float* base_;
  int turn_, mask_;
};

// Adds up v over `lanes` lanes, a power of two, whose index differs in the bits from `distance` on.
// Each is left with a share: v[0] up to v[max(1, kCount / lanes) - 1] are the sums that the
// result's number and those after it stand for.
template <int kWidth, int kCount>
SUFFUSE_DEVICE int add_lanes(float (&v)[kCount], int distance, int lanes) {
  if constexpr (kWidth == 1) {
    for (; lanes > 1; lanes /= 2, distance *= 2) v[0] += shuffle_xor(v[0], distance);
    return 0;
  } else {
    if (lanes == 1) return 0;
    constexpr int kHalf = kWidth / 2;
    const bool upper = gpu::lane() & distance;
#pragma unroll
    for (int i = 0; i < kHalf; i++) {
      const float kept = upper ? v[i + kHalf] : v[i];
      v[i] = kept + shuffle_xor(upper ? v[i] : v[i + kHalf], distance);
    }
    return (upper ? kHalf : 0) + add_lanes<kHalf>(v, 2 * distance, lanes / 2);
  }
}
template <int kCount>
SUFFUSE_DEVICE int add_lanes(float (&v)[kCount], int distance, int lanes) {
  return add_lanes<kCount, kCount>(v, distance, lanes);
}

}  // namespace suffuse
