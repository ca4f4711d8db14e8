// The shared memory of attention's forward on sm_90a, and the warpgroup that fills it.
#pragma once

#include "cuda/operand_tile.cuh"
#include "cuda/stage_ring.cuh"
#include "ops/attention/cuda/blocks.cuh"
#include "ops/attention/cuda/config_sm90.h"

namespace suffuse {

template <class Config>
struct AttentionSm90Shared {
  using S = typename Config::S;
  using Queries = OperandTile<S, gpu::Major::k, 64, Config::kD>;
  using Keys = OperandTile<S, gpu::Major::k, Config::kKeys, Config::kD>;
  using Values = OperandTile<S, gpu::Major::mn, Config::kD, Config::kKeys>;
  Queries queries[Config::kConsumers];  // results take their place
  Keys keys[Config::kStages];
  Values values[Config::kStages];
  StageRing<Config::kStages> key_ring, value_ring;
  uint64_t queries_full;
};

struct AttentionSm90Params {
  gpu::TensorMap q, k, v, out;  // by attention_sm90_maps
  AttentionParams attention;
};

// One thread: fills a ring with the tiles of the keys [range.x, range.y).
template <class Config, class LoadTile>
SUFFUSE_DEVICE void load_attention_tiles(StageRing<Config::kStages>& ring, int bytes, int2 range,
                                         const LoadTile& load) {
  RingPosition<Config::kStages> at;
  for (int key = range.x; key < range.y; key += Config::kKeys) {
    load(at.stage, key, ring.begin_fill(at, bytes));
    at.advance();
  }
}

// The warpgroup that loads.
template <class Config>
SUFFUSE_DEVICE void load_attention(AttentionSm90Shared<Config>& shared,
                                   const AttentionSm90Params& p, const AttentionBlock& block,
                                   int2 range) {
  using Shared = AttentionSm90Shared<Config>;
  const int b = static_cast<int>(block.b);
  const int group = block.h / static_cast<int>(p.attention.H / p.attention.G);
  const uint32_t warp = gpu::warp();
  if (warp > 1 || !gpu::elect_one()) return;
  if (warp == 0) {
    gpu::mbarrier_arrive_expect(&shared.queries_full, sizeof shared.queries);
#pragma unroll
    for (int i = 0; i < Config::kConsumers; i++) {
      shared.queries[i].load(p.q, &shared.queries_full, block.first + 64 * i, 0, block.h, b);
    }
    load_attention_tiles<Config>(shared.key_ring, Shared::Keys::kBytes, range,
                                 [&](int stage, int key, uint64_t* barrier) {
                                   shared.keys[stage].load(p.k, barrier, key, 0, group, b);
                                 });
  } else {
    load_attention_tiles<Config>(shared.value_ring, Shared::Values::kBytes, range,
                                 [&](int stage, int key, uint64_t* barrier) {
                                   shared.values[stage].load(p.v, barrier, 0, key, group, b);
                                 });
  }
}

}  // namespace suffuse
