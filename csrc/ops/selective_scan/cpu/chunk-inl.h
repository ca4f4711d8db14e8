// What the backward scan works with in one chunk of steps, its inputs and its results. Rows of a
// chunk are in the order of time.
#pragma once

#include "ops/selective_scan/cpu/ahead-inl.h"
#include "ops/selective_scan/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

constexpr int kTogether = 4;  // states

// Tables [states][lanes] of a block of channels; per step of a chunk [steps][lanes].
template <class N>
struct GradWorkspace {
  N *a, *carry, *grad_a, *b, *c, *grad_b, *grad_c;        // by state; b and c: constant ones
  N *delta, *slope, *u, *x, *y, *grad, *to_x, *to_delta;  // by step
  N* factor;                                              // of dz, in rows as they lie in memory
  N *states, *decays;  // [steps] of kTogether vectors; of the states also before and behind
  bool* restart;
  N *sum_b, *sum_c;  // varying: this unit's dB and dC, see scan_sum_blocks
};

template <class V>
int64_t workspace_numbers(const SelectiveScanParams& p) {
  return (7 * p.states + 9 * p.chunk + (2 * p.chunk + 2) * kTogether) * V::N;
}
template <class V, class N>
int64_t workspace_bytes(const SelectiveScanParams& p) {
  return workspace_numbers<V>(p) * static_cast<int64_t>(sizeof(N)) + p.chunk;
}

template <class V, class N>
GradWorkspace<N> cut_workspace(const SelectiveScanParams& p, void* memory) {
  GradWorkspace<N> w;
  N* next = static_cast<N*>(memory);
  const auto cut = [&](int64_t vectors) {
    N* const at = next;
    next += vectors * V::N;
    return at;
  };
  N** const tables[] = {&w.a, &w.carry, &w.grad_a, &w.b, &w.c, &w.grad_b, &w.grad_c};
  for (N** t : tables) *t = cut(p.states);
  N** const rows[] = {&w.delta, &w.slope, &w.u,        &w.x,     &w.y,
                      &w.grad,  &w.to_x,  &w.to_delta, &w.factor};
  for (N** r : rows) *r = cut(p.chunk);
  w.states = cut((p.chunk + 2) * kTogether) + kTogether * V::N;
  w.decays = cut(p.chunk * kTogether);
  w.restart = reinterpret_cast<bool*>(next);
  return w;
}

// What the chunk before it in the scan reads and writes: the next to come.
template <class S>
SUFFUSE_INLINE Ahead ahead_of_chunk(const SelectiveScanGradParams& g, const Lanes& at,
                                    const Steps& chunk) {
  const SelectiveScanParams& p = g.forward;
  Ahead ahead;
  if (chunk.first == 0) return ahead;
  const Steps next{chunk.first - p.chunk, static_cast<int>(p.chunk), chunk.reverse, chunk.length};
  const int64_t begin = next.begin();
  const ScanRows* const read[] = {&p.delta, &p.u, &g.grad_out, &p.z};
  for (const ScanRows* rows : read) ahead.add<S>(*rows, at, begin);
  const void* const written[] = {g.grad_u, g.grad_delta, g.grad_z};
  for (const void* data : written) ahead.add<S>(dense_rows(p, data), at, begin);
  return ahead;
}

// Rows of the chunk from step t on; `tile` is for those of which channels are adjacent.
template <class V, class S, class N>
SUFFUSE_INLINE void load_chunk_rows(V (&row)[V::N], const ScanRows& from, const N* tile,
                                    const Lanes& at, const Steps& chunk, int t) {
  if (from.time == 1) {
    load_rows(row, first_row<S>(from, at, chunk.begin() + t), from.channel, at.count,
              static_cast<int>(smaller(V::N, chunk.count - t)));
  } else {
    rows_of_tile(row, tile, t);
  }
}

// The gradient of y, before the gate, and what dz is besides y.
template <class V, class S, class N>
SUFFUSE_INLINE void load_gradient(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                  const Lanes& at, const Steps& chunk) {
  const SelectiveScanParams& p = g.forward;
  if (!p.z.data) return load_tile<V, S>(w.grad, g.grad_out, at, chunk.begin(), chunk.count);
  // to_x and to_delta are free until the states come
  if (g.grad_out.time != 1) load_tile<V, S>(w.to_x, g.grad_out, at, chunk.begin(), chunk.count);
  if (p.z.time != 1) load_tile<V, S>(w.to_delta, p.z, at, chunk.begin(), chunk.count);
  for (int t = 0; t < chunk.count; t += V::N) {
    V grad[V::N], z[V::N];
    load_chunk_rows<V, S>(grad, g.grad_out, w.to_x, at, chunk, t);
    load_chunk_rows<V, S>(z, p.z, w.to_delta, at, chunk, t);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      const V s = sigmoid_fast(z[i]), gate = z[i] * s;
      store(w.factor + (t + i) * V::N, grad[i] * muladd(gate, V(1) - s, s));
      grad[i] *= gate;
    }
    transpose(grad);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) store(w.grad + (t + i) * V::N, grad[i]);
  }
}

// All that a chunk starts from.
template <class V, class S, class N>
SUFFUSE_INLINE void prepare_chunk(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                  const Lanes& at, const Steps& chunk) {
  const SelectiveScanParams& p = g.forward;
  const V bias = load_channels<V, N>(p.bias, at);
  load_tile<V, S>(w.delta, p.delta, at, chunk.begin(), chunk.count);
  load_tile<V, S>(w.u, p.u, at, chunk.begin(), chunk.count);
  load_gradient<V, S>(g, w, at, chunk);
  if (p.softplus) {
    for (int t = 0; t < chunk.count; t++) {
      store(w.slope + t * V::N, sigmoid_fast(load<V>(w.delta + t * V::N) + bias));
    }
  }
  discretise(w.delta, chunk.count, bias, p.softplus);
  for (int t = 0; t < chunk.count; t++) {
    const V u = load<V>(w.u + t * V::N);
    store(w.x + t * V::N, u * load<V>(w.delta + t * V::N));
    store(w.y + t * V::N, zero<V>());
    store(w.to_x + t * V::N, zero<V>());
    store(w.to_delta + t * V::N, zero<V>());
  }
  for (int i = 0; i < chunk.count; i++) w.restart[i] = restarts(p, at.batch, chunk, i);
}

// What parts of the states leave to be added up: y, d(delta' u), d(delta').
constexpr int kPartRows = 3;
template <class N>
SUFFUSE_INLINE N* part_rows(const GradWorkspace<N>& w, int row) {
  return row == 0 ? w.y : row == 1 ? w.to_x : w.to_delta;
}

// dD and dbias of the chunk, and what its rows give back.
template <class V, class S, class N>
SUFFUSE_INLINE void finish_chunk(const SelectiveScanGradParams& g, GradWorkspace<N>& w,
                                 const Lanes& at, const Steps& chunk, V& grad_skip, V& grad_bias) {
  const SelectiveScanParams& p = g.forward;
  const int64_t begin = chunk.begin();
  const V skip = load_channels<V, N>(p.skip, at);
  for (int t = 0; t < chunk.count; t++) {
    const V u = load<V>(w.u + t * V::N), grad = load<V>(w.grad + t * V::N);
    store(w.y + t * V::N, muladd(skip, u, load<V>(w.y + t * V::N)));
    const V to_x = load<V>(w.to_x + t * V::N);
    V to_delta = muladd(load<V>(w.to_delta + t * V::N), V(static_cast<N>(kLn2)), to_x * u);
    if (p.softplus) to_delta *= load<V>(w.slope + t * V::N);
    grad_skip = muladd(grad, u, grad_skip);
    grad_bias += to_delta;
    store(w.to_delta + t * V::N, to_delta);
    store(w.u + t * V::N, muladd(to_x, load<V>(w.delta + t * V::N), grad * skip));
  }
  store_tile<V, S>(g.grad_u, p, w.u, at, begin, chunk.count);
  store_tile<V, S>(g.grad_delta, p, w.to_delta, at, begin, chunk.count);
  if (!p.z.data) return;
  for (int t = 0; t < chunk.count; t += V::N) {
    V row[V::N];
    rows_of_tile(row, w.y, t);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) row[i] *= load<V>(w.factor + (t + i) * V::N);
    const S* to = first_row<S>(dense_rows(p, g.grad_z), at, begin + t);
    store_rows(const_cast<S*>(to), p.length, at.count,
               static_cast<int>(smaller(V::N, chunk.count - t)), row);
  }
}

template <class V, class N>
SUFFUSE_INLINE void store_channel_sums(const SelectiveScanGradParams& g, const Lanes& at,
                                       V grad_skip, V grad_bias) {
  const int64_t row = at.batch * g.forward.channels + at.channel;
  store(static_cast<N*>(g.sums_skip) + row, grad_skip, at.count);
  store(static_cast<N*>(g.sums_bias) + row, grad_bias, at.count);
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
