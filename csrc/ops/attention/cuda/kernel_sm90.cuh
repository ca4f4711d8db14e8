// Attention forward for sm_90a (Shah et al. 2024).
//
// One warpgroup loads: a warp the queries and the tiles of keys, another those of values, by TMA
// into rings of stages. Each of the others has 64 queries, and their scores, weights and sums in
// registers. It starts q k^T of a tile and p v of the tile before together, so that one runs while
// it makes weights of the other; and the warpgroups take turns to start, so that the weights of one
// are made while another multiplies.
#pragma once

#include "ops/attention/cuda/load_sm90.cuh"
#include "ops/attention/cuda/score_tiles.cuh"
#include "ops/attention/cuda/softmax.cuh"

namespace suffuse {

// The fragments of a warpgroup as wgmma takes them.
template <int kCount>
SUFFUSE_DEVICE float (&accumulators(float (&fragments)[kCount][4]))[4 * kCount] {
  return reinterpret_cast<float (&)[4 * kCount]>(fragments);
}

// A warpgroup's 64 queries: the keys that they see, and the registers.
template <class Config>
class AttentionSm90Consumer {
  using S = typename Config::S;
  using Shared = AttentionSm90Shared<Config>;
  static constexpr int kKeys = Config::kKeys, kConsumers = Config::kConsumers;
  static constexpr int kSums = Config::kD / 8, kScores = kKeys / 8, kSteps = kKeys / 16;
  static constexpr bool kTurns = Config::kD <= 128;

 public:
  // range: the keys of the block, from the start of a tile.
  SUFFUSE_DEVICE AttentionSm90Consumer(const ScoreTerms& terms, Shared& shared, int2 range,
                                       int first, int consumer)
      : shared_(shared),
        terms_(terms),
        range_(range),
        own_(key_range<kKeys>(terms, first, 64)),
        consumer_(consumer),
        query_(first + static_cast<int>(gpu::warp() % 4) * 16),
        begin_(query_ + terms.shift - far(terms.left)),
        count_(far(terms.left) + far(terms.right) + 1) {
    if (own_.y <= own_.x || first >= terms.queries) own_ = {range.y, range.y};
    softmax_.clear();
#pragma unroll
    for (int n = 0; n < kSums; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sums_[n][e] = 0;
    }
  }

  // A logit without a value, base 2.
  SUFFUSE_DEVICE void push_sink(float logit) { softmax_.push_sink(logit); }

  SUFFUSE_DEVICE void run() {
    gpu::mbarrier_wait(&shared_.queries_full, 0);
    int key = range_.x;
    for (; key < own_.x; key += kKeys) leave_out(key);
    if (own_.x < own_.y) {
      start(key);
      for (key += kKeys; key < own_.y; key += kKeys) go_on(key);
      end();
    }
    for (; key < range_.y; key += kKeys) leave_out(key);
  }

  // Results: into the place of the queries and from there to rows that exist. `elected`: one
  // thread of the warpgroup. lse: of the sequence's query 0.
  SUFFUSE_DEVICE void store(const gpu::TensorMap& out, const AttentionBlock& block, float* lse,
                            bool elected) {
    softmax_.finish();
    const float inverse[2] = {softmax_.inverse(0), softmax_.inverse(1)};
    scale_sums(inverse);
    auto& tile = shared_.queries[consumer_];  // no product reads it any more
    store_accumulators(tile, accumulators(sums_));
    gpu::fence_async();
    gpu::named_barrier_sync(1 + kConsumers + consumer_, 128);
    if (elected) {
      tile.store(out, block.first + 64 * consumer_, 0, block.h, static_cast<int>(block.b));
      gpu::bulk_commit();
    }
    store_lse(lse);
    if (elected) gpu::bulk_wait_read<0>();
  }

 private:
  // Sums of these and positions stay below 2^31.
  SUFFUSE_DEVICE static int far(int distance) { return ::min(distance, 1 << 29); }
  SUFFUSE_DEVICE float factor() const { return Config::kGeneral ? 1.f : terms_.scale; }

  // Turns: one after the other, in every tile of the block. Products of the widest heads take so
  // much longer than their softmax that there are none.
  SUFFUSE_DEVICE void begin_turn(int key) const {
    if (!kTurns) return;
    if (consumer_ > 0 || key > range_.x) gpu::named_barrier_sync(1 + consumer_, 256);
  }
  SUFFUSE_DEVICE void end_turn(int key) const {
    if (!kTurns) return;
    const int next = consumer_ + 1 < kConsumers ? consumer_ + 1 : 0;
    if (next > 0 || key + kKeys < range_.y) gpu::named_barrier_arrive(1 + next, 256);
  }

  SUFFUSE_DEVICE void release_keys() {
    if (gpu::lane() == 0) shared_.key_ring.release(keys_.stage);
    keys_.advance();
  }
  SUFFUSE_DEVICE void release_values() {
    if (gpu::lane() == 0) shared_.value_ring.release(values_.stage);
    values_.advance();
  }

  // A tile that the block goes through and these queries do not see.
  SUFFUSE_DEVICE void leave_out(int key) {
    shared_.key_ring.wait_full(keys_);
    release_keys();
    shared_.value_ring.wait_full(values_);
    release_values();
    begin_turn(key);
    end_turn(key);
  }

  SUFFUSE_DEVICE void multiply_keys(float (&scores)[kScores][4]) {
    multiply_tiles(accumulators(scores), shared_.queries[consumer_], 0, shared_.keys[keys_.stage],
                   false);
    gpu::wgmma_commit();
  }
  SUFFUSE_DEVICE void multiply_values() {
#pragma unroll
    for (uint32_t k = 0; k < kSteps; k++) {
      gpu::wgmma<Config::kD, S, gpu::Major::mn>(accumulators(sums_), weights_[k],
                                                shared_.values[values_.stage].descriptor(0, 16 * k),
                                                true);
    }
    gpu::wgmma_commit();
  }

  // The first tile: its weights.
  SUFFUSE_DEVICE void start(int key) {
    float scores[kScores][4], keep[2];
    shared_.key_ring.wait_full(keys_);
    begin_turn(key);
    gpu::wgmma_fence(scores);
    multiply_keys(scores);
    end_turn(key);
    gpu::wgmma_wait<0>(scores);
    release_keys();
    weigh(scores, key, keep);  // there are no sums to keep
    weights_of<S>(weights_, scores);
  }

  // Another: its weights, and the sums of the tile before.
  SUFFUSE_DEVICE void go_on(int key) {
    float scores[kScores][4], keep[2];
    shared_.key_ring.wait_full(keys_);
    shared_.value_ring.wait_full(values_);
    begin_turn(key);
    gpu::wgmma_fence(scores, sums_, weights_);
    multiply_keys(scores);
    multiply_values();
    end_turn(key);
    gpu::wgmma_wait<1>(scores);
    release_keys();
    weigh(scores, key, keep);
    if (has_moved(keep)) {
      gpu::wgmma_wait<0>(sums_, weights_);
      scale_sums(keep);
    }
    gpu::wgmma_wait<0>(sums_, weights_);
    release_values();
    weights_of<S>(weights_, scores);
  }

  // The sums of the last tile.
  SUFFUSE_DEVICE void end() {
    shared_.value_ring.wait_full(values_);
    gpu::wgmma_fence(sums_, weights_);
    multiply_values();
    gpu::wgmma_wait<0>(sums_, weights_);
    release_values();
  }

  // Whether the warp's queries see all keys of a tile.
  SUFFUSE_DEVICE bool sees_all(int key) const {
    return key - begin_ >= 15 && begin_ + count_ - key >= kKeys && terms_.keys - key >= kKeys;
  }

  // Products become weights; keep: the factors for what was summed before.
  SUFFUSE_DEVICE void weigh(float (&scores)[kScores][4], int key, float (&keep)[2]) {
    if constexpr (Config::kGeneral) add_terms<S>(scores, terms_, query_, key);
    if (!sees_all(key)) hide_keys(scores, begin_, count_, terms_.keys, key);
    softmax_.push(scores, factor(), keep);
  }

  // Whether what was summed has to be scaled. The sums of weights, which are no negative numbers,
  // take part for this alone: the branch comes after all weights of the tile, and with it the wait
  // for the product, which the compiler would else move up, and the two would not overlap.
  SUFFUSE_DEVICE bool has_moved(const float (&keep)[2]) const {
    return __any_sync(0xffffffffu,
                      keep[0] != 1 || keep[1] != 1 || softmax_.sum[0] < 0 || softmax_.sum[1] < 0);
  }

  SUFFUSE_DEVICE void scale_sums(const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < kSums; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sums_[n][e] *= factor[e >> 1];
    }
  }

  SUFFUSE_DEVICE void store_lse(float* lse) const {
    if (gpu::lane() % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = fragment_row(query_, 2 * half);
      if (row < terms_.queries) lse[row] = softmax_.lse(half, factor());
    }
  }

  Shared& shared_;
  ScoreTerms terms_;
  int2 range_, own_;  // keys of the block, and those that the queries see any of
  int consumer_;
  int query_;          // the warp's first
  int begin_, count_;  // the keys that it sees; each other's are one further
  RingPosition<Config::kStages> keys_, values_;
  RowSoftmax softmax_;
  float sums_[kSums][4];
  uint32_t weights_[kSteps][4];
};

// Of sequences that all have the same rows.
SUFFUSE_DEVICE AttentionSequence even_sequence(const AttentionParams& p, int64_t b) {
  const int64_t shift = p.scores.top_left ? 0 : p.S - p.T;
  return {b, p.T, p.S, b, 0, b, 0, shift, p.scores.left, p.scores.right};
}

// Launched by attention_sm90_shape.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    attention_forward_sm90_kernel(const __grid_constant__ AttentionSm90Params p) {
  using S = typename Config::S;
  auto& shared = gpu::shared<AttentionSm90Shared<Config>>();
  if (threadIdx.x == 0) {
    gpu::prefetch_tensor_map(p.q);
    gpu::prefetch_tensor_map(p.k);
    gpu::prefetch_tensor_map(p.v);
    gpu::mbarrier_init(&shared.queries_full, 1);
    shared.value_ring.init(4 * Config::kConsumers);
    shared.key_ring.init(4 * Config::kConsumers);
  }
  __syncthreads();
  const AttentionBlock block = attention_block<Config>(p.attention);
  const AttentionSequence s = even_sequence(p.attention, block.b);
  ScoreTerms terms = score_terms<Config::kGeneral, S>(p.attention, s, block.h);
  terms.bias = nullptr;  // there is none, and now the compiler knows
  const int2 range = key_range<Config::kKeys>(terms, block.first, Config::kRows);
  // The same for all lanes, and by the shuffle the compiler knows it.
  const int warpgroup = static_cast<int>(__shfl_sync(0xffffffffu, threadIdx.x / 128, 0));
  if (warpgroup == 0) {
    gpu::set_max_registers_down<Config::kLoaderRegisters>();
    load_attention<Config>(shared, p, block, range);
  } else {
    gpu::set_max_registers_up<Config::kConsumerRegisters>();
    const int consumer = warpgroup - 1;
    AttentionSm90Consumer<Config> rows(terms, shared, range, block.first + 64 * consumer, consumer);
    if constexpr (Config::kGeneral) {
      const float* sinks = static_cast<const float*>(p.attention.scores.sinks);
      if (sinks != nullptr) rows.push_sink(sinks[block.h] * kAttentionLog2e);
    }
    rows.run();
    float* lse = static_cast<float*>(p.attention.lse) + attention_lse(p.attention, s, block.h, 0);
    rows.store(p.out, block, lse, threadIdx.x % 128 == 0);
  }
}

}  // namespace suffuse
