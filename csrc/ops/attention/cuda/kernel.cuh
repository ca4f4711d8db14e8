// Attention forward on the tensor cores of sm_80 and later (Dao 2023).
//
// Each warp has rows of queries of its own. Tiles of keys and of values take turns in the slots of
// shared memory, K0 V0 K1 V1 ..., with copies running kSlots - 1 tiles ahead. Scores, weights and
// sums stay in registers: a result of q k^T is the operand of p v as it is.
#pragma once

#include "ops/attention/cuda/blocks.cuh"
#include "ops/attention/cuda/rows.cuh"
#include "ops/attention/cuda/score_tiles.cuh"
#include "ops/attention/cuda/softmax.cuh"

namespace suffuse {

// What a block does: the tiles that it goes through, and its warp's registers.
template <class Config>
class AttentionForwardBlock {
  using S = typename Config::S;
  using Shared = AttentionForwardShared<Config>;
  using Queries = decltype(Shared::queries);
  using Keys = typename Shared::Keys;
  using Values = typename Shared::Values;
  template <class Tile>
  using Loads = std::conditional_t<Config::kGeneral, AnyLoads<Tile, Config::kThreads>,
                                   AlignedLoads<Tile, Config::kThreads>>;
  static constexpr int kKeys = Config::kKeys, kSlots = Config::kSlots, kTilesM = Config::kTilesM;
  static constexpr int kDepth = kMmaDepth<S>;
  static constexpr int kQuerySteps = Config::kQueriesInRegisters ? Config::kD / kDepth : 1;

 public:
  SUFFUSE_DEVICE AttentionForwardBlock(const AttentionParams& p, const AttentionSequence& s,
                                       const AttentionBlock& block, Shared& shared, int bytes)
      : p_(p),
        shared_(shared),
        bytes_(bytes),
        first_(block.first),
        terms_(score_terms<Config::kGeneral, S>(p, s, block.h)),
        begin_(first_ + row() < terms_.queries ? first_ + row() + terms_.shift - far(terms_.left)
                                               : kNone),
        count_(far(terms_.left) + far(terms_.right) + 1),
        range_(key_range<kKeys>(terms_, block.first, Config::kRows)),
        keys_(loads<Keys>(p.k, s, block.h, p.D)),
        values_(loads<Values>(p.v, s, block.h, p.Dv)) {
    const AttentionRows<S> queries = query_rows<S>(p.q, s, block.h, p.D);
    if constexpr (Config::kGeneral) {
      Loads<Queries>(queries, first_, {}, bytes).next(shared_.queries);
    } else {
      Loads<Queries>(queries, first_).next(shared_.queries);
    }
    if (threadIdx.x == 0) {
      shared.result = attention_query(p.out, s, 0) + block.h * p.out.head;
      shared.lse = attention_lse(p, s, block.h, 0);
      shared.rows = terms_.queries;
    }
    start(block.h);
  }

  SUFFUSE_DEVICE void run() {
    for (int key = range_.x; key < range_.y; key += kKeys) {
      const bool seen = sees(key);
      uint32_t weights[kTilesM][kKeys / kDepth][4];
      next_tile<false>(key);
      if (seen) weigh(weights, key);
      next_tile<true>(key);
      if (seen) {
        multiply_values<S, Config::kTf32>(out_, weights, shared_.slots[slot_].values, 0);
      }
    }
    gpu::copy_async_wait<0>();
    __syncthreads();  // all are done with the queries: the results take their place
    finish();
  }

 private:
  static constexpr int kNone = 1 << 30;  // behind all keys
  // Sums of these and positions stay below 2^31.
  SUFFUSE_DEVICE static int far(int distance) { return ::min(distance, 1 << 29); }
  // The warp's first row in the block.
  SUFFUSE_DEVICE static int row() { return gpu::opaque(threadIdx.x) / 32 * Config::kRowsOfWarp; }
  SUFFUSE_DEVICE float factor() const { return Config::kGeneral ? 1.f : terms_.scale; }

  // Loads of keys or values, from the first tile on.
  template <class Tile>
  SUFFUSE_DEVICE Loads<Tile> loads(const AttentionTensor& t, const AttentionSequence& s, int h,
                                   int64_t columns) const {
    const int64_t group = h / static_cast<int>(p_.H / p_.G);
    if constexpr (Config::kGeneral) {
      return any_loads<Tile, Config::kThreads, S>(p_, t, s, group, columns, range_.x, bytes_);
    } else {
      return {key_rows<S>(t, s, group, columns), range_.x};
    }
  }

  // The first tiles are on their way, with the queries; the registers are empty.
  SUFFUSE_DEVICE void start(int h) {
#pragma unroll
    for (int step = 0; step < kSlots - 1; step++) {
      if (step % 2 == 0) {
        fetch<false>(range_.x + step / 2 * kKeys, step);
      } else {
        fetch<true>(range_.x + step / 2 * kKeys, step);
      }
    }
    slot_ = kSlots - 1;
    const float* sinks = static_cast<const float*>(p_.scores.sinks);
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
      softmax_[m].clear();
      if (Config::kGeneral && sinks != nullptr) {
        softmax_[m].push_sink(sinks[h] * kAttentionLog2e);
      }
#pragma unroll
      for (int n = 0; n < Config::kDv / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) out_[m][n][e] = 0;
      }
    }
    if constexpr (Config::kQueriesInRegisters) {
      gpu::copy_async_wait<kSlots - 2>();
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kQuerySteps; k++) load_query_step(queries_[k], k * kDepth);
    }
  }

  SUFFUSE_DEVICE void load_query_step(uint32_t (&a)[kTilesM][4], int k) const {
#pragma unroll
    for (int m = 0; m < kTilesM; m++) load_queries(a[m], shared_.queries, row() + 16 * m, k);
  }

  // Starts the copies of the keys or values from `key` on, if there are any.
  template <bool kValues>
  SUFFUSE_DEVICE void fetch(int key, int slot) {
    if (key < range_.y) {
      if constexpr (kValues) {
        values_.next(shared_.slots[slot].values);
      } else {
        keys_.next(shared_.slots[slot].keys);
      }
    }
    gpu::copy_async_commit();
  }

  // Waits for the keys or values from `key` on, in slot_ then, and starts the copies kSlots - 1
  // steps ahead, into the slot of the step before.
  template <bool kValues>
  SUFFUSE_DEVICE void next_tile(int key) {
    constexpr int kAhead = kSlots - 1 + kValues;  // steps from those of its keys
    gpu::copy_async_wait<kSlots - 2>();
    __syncthreads();
    fetch<kAhead % 2 != 0>(key + kAhead / 2 * kKeys, kSlots == 2 ? !kValues : slot_);
    if constexpr (kSlots == 2) {
      slot_ = kValues;
    } else {
      slot_ = slot_ + 1 < kSlots ? slot_ + 1 : 0;
    }
  }

  // Whether the warp's queries see any of a tile's keys. (Differences from `key`, which changes,
  // for what does not would be kept in registers.)
  SUFFUSE_DEVICE bool sees(int key) const {
    return key - (begin_ + count_) < Config::kRowsOfWarp - 1 && begin_ - key < kKeys;
  }
  // Whether they see all of them.
  SUFFUSE_DEVICE bool sees_all(int key) const {
    return key - begin_ >= Config::kRowsOfWarp - 1 && begin_ + count_ - key >= kKeys &&
           terms_.keys - key >= kKeys;
  }

  SUFFUSE_DEVICE void score(float (&scores)[kTilesM][kKeys / 8][4], const Keys& keys) {
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) scores[m][n][e] = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < Config::kD; k += kDepth) {
      if constexpr (Config::kQueriesInRegisters) {
        multiply_keys<S, Config::kTf32>(scores, queries_[k / kDepth], keys, 0, k);
      } else {
        uint32_t a[kTilesM][4];
        load_query_step(a, k);
        multiply_keys<S, Config::kTf32>(scores, a, keys, 0, k);
      }
    }
  }

  // The weights of the keys from `key` on, as operands; what was summed before is scaled to them.
  SUFFUSE_DEVICE void weigh(uint32_t (&weights)[kTilesM][kKeys / kDepth][4], int key) {
    float scores[kTilesM][kKeys / 8][4];
    score(scores, shared_.slots[slot_].keys);
    const int query = first_ + row();
    const bool whole = sees_all(key);
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
      if (Config::kGeneral) add_terms<S>(scores[m], terms_, query + 16 * m, key);
      if (!whole) hide_keys(scores[m], begin_ + 16 * m, count_, terms_.keys, key);
      float keep[2];
      softmax_[m].push(scores[m], factor(), keep);
      if (__any_sync(0xffffffffu, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int n = 0; n < Config::kDv / 8; n++) {
#pragma unroll
          for (int e = 0; e < 4; e++) out_[m][n][e] *= keep[e >> 1];
        }
      }
      if (Config::kGeneral && terms_.threshold != 0) {
        drop_weights(scores[m], terms_, query + 16 * m, key);
      }
      weights_of<S>(weights[m], scores[m]);
    }
  }

  SUFFUSE_DEVICE void finish() {
    const int first = attention_block<Config>(p_).first;
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
      softmax_[m].finish();
      const float inverse[2] = {softmax_[m].inverse(0), softmax_[m].inverse(1)};
#pragma unroll
      for (int n = 0; n < Config::kDv / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) out_[m][n][e] *= inverse[e >> 1];
        store_result(shared_.out, out_[m][n], row() + 16 * m, 8 * n);
      }
      store_lse(softmax_[m], first + row() + 16 * m);
    }
    __syncthreads();
    const Matrix<S> result = {static_cast<S*>(p_.out.data) + shared_.result, p_.out.row,
                              shared_.rows, static_cast<int>(p_.Dv)};
    if (!Config::kGeneral || bytes_ == 16) {
      store_tile<16, Config::kThreads>(shared_.out, result, first, 0);
    } else {
      store_tile<sizeof(S), Config::kThreads>(shared_.out, result, first, 0);
    }
  }

  SUFFUSE_DEVICE void store_lse(const RowSoftmax& softmax, int query) const {
    if (gpu::lane() % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = fragment_row(query, 2 * half);
      if (row < shared_.rows)
        static_cast<float*>(p_.lse)[shared_.lse + row] = softmax.lse(half, factor());
    }
  }

  const AttentionParams& p_;
  Shared& shared_;
  int bytes_;  // attention_copy_bytes
  int first_, slot_;
  ScoreTerms terms_;
  int begin_, count_;  // the keys that the warp's first query sees; each other's are one further
  int2 range_;         // the keys that the block goes through
  Loads<Keys> keys_;
  Loads<Values> values_;
  RowSoftmax softmax_[kTilesM];
  float out_[kTilesM][Config::kDv / 8][4];
  uint32_t queries_[kQuerySteps][kTilesM][4];
};

// Launched by attention_forward_shape; bytes: attention_copy_bytes.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    attention_forward_kernel(const __grid_constant__ AttentionParams p, int bytes) {
  auto& shared = gpu::shared<AttentionForwardShared<Config>>();
  const AttentionBlock block = attention_block<Config>(p);
  const AttentionSequence s = attention_sequence(p, block.b);
  clear_vacant_rows<typename Config::S>(p, s, block, attention_blocks(p, Config::kRows));
  if (block.first < s.T) AttentionForwardBlock<Config>(p, s, block, shared, bytes).run();
}

}  // namespace suffuse
