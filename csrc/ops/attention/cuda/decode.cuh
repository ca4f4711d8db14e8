// Attention of a few queries over many keys (split-KV decoding), on the tensor cores of sm_80 and
// later: memory decides, so every key and value is read once for all query heads that share it.
//
// The rows of a tile are the queries of the heads of one KV head: row i R + r is query i of the
// group's head r. A block has 16 of them and one chunk of the keys, of which each warp takes every
// kWarps-th 16 by itself, with copies of its own and no barrier; the warps' results are merged in
// shared memory, those of the chunks by attention_combine_kernel, both in a fixed order.
#pragma once

#include "ops/attention/cuda/decode_config.h"
#include "ops/attention/cuda/rows.cuh"
#include "ops/attention/cuda/scores.cuh"
#include "ops/attention/cuda/softmax.cuh"

namespace suffuse {

template <class Config>
struct AttentionDecodeShared {
  using S = typename Config::S;
  using Keys = Tile<S, Config::kKeys, Config::kD>;
  using Part = Tile<float, Config::kRows, Config::kD, TileOrder::columns>;
  struct Stage {
    Keys keys, values;
  };
  Tile<S, Config::kRows, Config::kD> queries;
  union {
    Stage stages[Config::kWarps][Config::kStages];
    Part parts[Config::kWarps];
  };
  float tops[Config::kWarps][Config::kRows], sums[Config::kWarps][Config::kRows];
};

// Work of one block.
struct AttentionDecodeBlock {
  int64_t b;
  int group, chunk, first_row;
};
SUFFUSE_DEVICE AttentionDecodeBlock attention_decode_block(const AttentionDecodeParams& d) {
  const AttentionParams& p = d.forward;
  const uint32_t tiles = static_cast<uint32_t>(attention_decode_tiles(p));
  const uint32_t chunks = static_cast<uint32_t>(d.chunks), groups = static_cast<uint32_t>(p.G);
  const uint32_t pair = blockIdx.x / tiles / chunks;
  return {pair / groups, static_cast<int>(pair % groups),
          static_cast<int>(blockIdx.x / tiles % chunks),
          static_cast<int>(blockIdx.x % tiles) * kAttentionDecodeRows};
}

// A partial result in the workspace.
SUFFUSE_DEVICE float* attention_part(const AttentionDecodeParams& d, int64_t b, int64_t chunk,
                                     int64_t h, int64_t query) {
  const AttentionParams& p = d.forward;
  const int64_t row = ((b * d.chunks + chunk) * p.H + h) * p.T + query;
  return static_cast<float*>(d.workspace) + row * attention_decode_row(p.Dv);
}

template <class Config>
class AttentionDecodeWarp {
  using S = typename Config::S;
  using Shared = AttentionDecodeShared<Config>;
  using Keys = typename Shared::Keys;
  static constexpr int kKeys = Config::kKeys, kStages = Config::kStages;
  static constexpr int kStep = kKeys * Config::kWarps;

 public:
  SUFFUSE_DEVICE AttentionDecodeWarp(const AttentionDecodeParams& d,
                                     const AttentionDecodeBlock& block, Shared& shared, int begin,
                                     int end, const AttentionSequence& s, int bytes)
      : shared_(shared),
        begin_(begin + static_cast<int>(gpu::warp()) * kKeys),
        end_(end),
        keys_(loads(d.forward, d.forward.k, s, block.group, d.forward.D, bytes)),
        values_(loads(d.forward, d.forward.v, s, block.group, d.forward.Dv, bytes)) {
    const AttentionParams& p = d.forward;
    const int heads = static_cast<int>(p.H / p.G);
    terms_ = score_terms<true, S>(p, s, block.group * heads);
    terms_.bias = nullptr;  // there is none, and the compiler is to know
    terms_.bias_kind = AttentionBias::none;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = block.first_row + static_cast<int>(gpu::lane() >> 2) + 8 * half;
      query_[half] = row / heads;
      slope_[half] = 0;
      if (p.scores.alibi != nullptr && query_[half] < terms_.queries) {
        const float* slopes = advance<float>(p.scores.alibi, s.b * p.scores.alibi_batch);
        slope_[half] = slopes[block.group * heads + row % heads] * kAttentionLog2e;
      }
    }
  }

  SUFFUSE_DEVICE void run() {
    softmax_[0].clear();
#pragma unroll
    for (int n = 0; n < Config::kD / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) out_[0][n][e] = 0;
    }
#pragma unroll
    for (int i = 0; i < kStages - 1; i++) fetch(begin_ + i * kStep, i);
    int stage = 0, free_stage = kStages - 1;
    for (int key = begin_; key < end_; key += kStep) {
      gpu::copy_async_wait<kStages - 2>();
      __syncwarp();  // the stage is there for all lanes, and all are done with the free one
      fetch(key + (kStages - 1) * kStep, free_stage);
      compute(key, shared_.stages[gpu::warp()][stage]);
      free_stage = stage;
      stage = stage + 1 < kStages ? stage + 1 : 0;
    }
    gpu::copy_async_wait<0>();
    softmax_[0].finish();
  }

  // Where the block's warps meet; the stages are no longer needed.
  SUFFUSE_DEVICE void put() {
    const int warp = gpu::warp(), lane = gpu::lane();
#pragma unroll
    for (int n = 0; n < Config::kD / 8; n++)
      store_result(shared_.parts[warp], out_[0][n], 0, 8 * n);
    if (lane % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      shared_.tops[warp][lane / 4 + 8 * half] = softmax_[0].top[half];
      shared_.sums[warp][lane / 4 + 8 * half] = softmax_[0].sum[half];
    }
  }

 private:
  SUFFUSE_DEVICE AnyLoads<Keys, 32> loads(const AttentionParams& p, const AttentionTensor& t,
                                          const AttentionSequence& s, int group, int64_t columns,
                                          int bytes) const {
    return any_loads<Keys, 32, S>(p, t, s, group, columns, begin_, bytes);
  }

  SUFFUSE_DEVICE void fetch(int key, int stage) {
    if (key < end_) {
      keys_.next(shared_.stages[gpu::warp()][stage].keys, kStep);
      values_.next(shared_.stages[gpu::warp()][stage].values, kStep);
    }
    gpu::copy_async_commit();
  }

  SUFFUSE_DEVICE void compute(int key, const typename Shared::Stage& stage) {
    float scores[1][kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < Config::kD; k += kMmaDepth<S>) {
      uint32_t a[1][4];
      load_queries(a[0], shared_.queries, 0, k);
      multiply_keys<S, false>(scores, a, stage.keys, 0, k);
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int column = key + 8 * n + static_cast<int>(gpu::lane() & 3) * 2 + (e & 1);
        terms_.slope = slope_[e >> 1];
        const int query = query_[e >> 1];
        const float score = score_of<true, S>(terms_, scores[0][n][e], query, column).value;
        scores[0][n][e] = is_seen(terms_, query, column) ? score : -__int_as_float(0x7f800000);
      }
    }
    float keep[2];
    softmax_[0].push(scores[0], 1.f, keep);
    if (__any_sync(0xffffffffu, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
      for (int n = 0; n < Config::kD / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) out_[0][n][e] *= keep[e >> 1];
      }
    }
    uint32_t weights[1][kKeys / kMmaDepth<S>][4];
    weights_of<S>(weights[0], scores[0]);
    multiply_values<S, false>(out_, weights, stage.values, 0);
  }

  Shared& shared_;
  int begin_, end_;
  ScoreTerms terms_;
  int query_[2];
  float slope_[2];
  AnyLoads<Keys, 32> keys_, values_;
  RowSoftmax softmax_[1];
  float out_[1][Config::kD / 8][4];
};

// Rows of the group's queries, into the tile.
template <class Config>
SUFFUSE_DEVICE void load_decode_queries(AttentionDecodeShared<Config>& shared,
                                        const AttentionParams& p, const AttentionDecodeBlock& block,
                                        const AttentionSequence& s) {
  using S = typename Config::S;
  const int heads = static_cast<int>(p.H / p.G);
  for (int i = threadIdx.x; i < Config::kRows * Config::kD; i += Config::kThreads) {
    const int r = i / Config::kD, c = i % Config::kD, row = block.first_row + r;
    S value{};
    if (row < heads * s.T && c < p.D) {
      const int64_t head = block.group * heads + row % heads;
      value = static_cast<const S*>(
          p.q.data)[attention_query(p.q, s, row / heads) + head * p.q.head + c];
    }
    *shared.queries.at(r, c) = value;
  }
}

// The warps' results, one after another, become the chunk's.
template <class Config>
SUFFUSE_DEVICE void store_decode_part(const AttentionDecodeShared<Config>& shared,
                                      const AttentionDecodeParams& d,
                                      const AttentionDecodeBlock& block) {
  const AttentionParams& p = d.forward;
  const int heads = static_cast<int>(p.H / p.G), columns = static_cast<int>(attention_padded(p.Dv));
  const int rows = ::min(Config::kRows, static_cast<int>(heads * p.T) - block.first_row);
  for (int i = threadIdx.x; i < rows * (columns / 4); i += Config::kThreads) {
    const int r = i / (columns / 4), c = i % (columns / 4) * 4, row = block.first_row + r;
    float top = -__int_as_float(0x7f800000);
    for (int w = 0; w < Config::kWarps; w++) top = fmaxf(top, shared.tops[w][r]);
    const float offset = top == -__int_as_float(0x7f800000) ? 0.f : top;
    float4 sums = {0, 0, 0, 0};
    float sum = 0;
    for (int w = 0; w < Config::kWarps; w++) {
      const float factor = gpu::exp2_approx(shared.tops[w][r] - offset);
      const float4 part = gpu::load_vector<float4>(shared.parts[w].at(r, c));
      sum = fmaf(factor, shared.sums[w][r], sum);
      sums = {fmaf(factor, part.x, sums.x), fmaf(factor, part.y, sums.y),
              fmaf(factor, part.z, sums.z), fmaf(factor, part.w, sums.w)};
    }
    float* to =
        attention_part(d, block.b, block.chunk, block.group * heads + row % heads, row / heads);
    gpu::store_vector(to + c, sums);
    if (c == 0) gpu::store_vector(to + columns, float2{top, sum});
  }
}

// Launched by attention_decode_shape; bytes: attention_copy_bytes.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    attention_decode_kernel(const __grid_constant__ AttentionDecodeParams d, int bytes) {
  using Shared = AttentionDecodeShared<Config>;
  auto& shared = gpu::shared<Shared>();
  const AttentionDecodeBlock block = attention_decode_block(d);
  const AttentionSequence s = attention_sequence(d.forward, block.b);
  const int begin = static_cast<int>(block.chunk * d.chunk);
  const int end = static_cast<int>(begin + d.chunk < s.S ? begin + d.chunk : s.S);
  load_decode_queries<Config>(shared, d.forward, block, s);
  __syncthreads();
  AttentionDecodeWarp<Config> warp(d, block, shared, begin, end, s, bytes);
  warp.run();
  __syncthreads();  // all are done with their stages
  warp.put();
  __syncthreads();
  store_decode_part<Config>(shared, d, block);
}

// out and lse of one row a warp, from those of its chunks in their order; a sink comes first.
// Launched by attention_combine_shape.
template <class S>
__global__ void __launch_bounds__(AttentionCombine::kThreads)
    attention_combine_kernel(const __grid_constant__ AttentionDecodeParams d) {
  const AttentionParams& p = d.forward;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * AttentionCombine::kRows + gpu::warp();
  if (row >= p.B * p.H * p.T) return;
  const int64_t query = row % p.T, h = row / p.T % p.H, b = row / p.T / p.H;
  const int columns = static_cast<int>(attention_padded(p.Dv));
  RowSoftmax softmax;
  softmax.clear();
  if (p.scores.sinks != nullptr) {
    softmax.push_sink(static_cast<const float*>(p.scores.sinks)[h] * kAttentionLog2e);
  }
  float top = softmax.top[0];
  for (int64_t c = 0; c < d.chunks; c++) {
    top = fmaxf(top, attention_part(d, b, c, h, query)[columns]);
  }
  const float offset = top == -__int_as_float(0x7f800000) ? 0.f : top;
  const float sink = shuffle(softmax.sum[0], 0) * gpu::exp2_approx(softmax.top[0] - offset);
  softmax.top[0] = top;
  softmax.sum[0] = sink;
  for (int64_t c = 0; c < d.chunks; c++) {
    const float2 part = gpu::load_vector<float2>(attention_part(d, b, c, h, query) + columns);
    softmax.sum[0] = fmaf(gpu::exp2_approx(part.x - offset), part.y, softmax.sum[0]);
  }
  const AttentionSequence s = attention_sequence(p, b);
  const float inverse = softmax.inverse(0);
  S* out = static_cast<S*>(p.out.data) + attention_query(p.out, s, query) + h * p.out.head;
  for (int e = gpu::lane(); e < p.Dv; e += 32) {
    float sum = 0;
    for (int64_t c = 0; c < d.chunks; c++) {
      const float* part = attention_part(d, b, c, h, query);
      sum = fmaf(gpu::exp2_approx(part[columns] - offset), part[e], sum);
    }
    out[e] = gpu::from_float<S>(sum * inverse);
  }
  if (gpu::lane() == 0) {
    static_cast<float*>(p.lse)[attention_lse(p, s, h, query)] = softmax.lse(0, 1.f);
  }
}

}  // namespace suffuse
