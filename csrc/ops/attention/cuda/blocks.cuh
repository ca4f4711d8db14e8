// What a block of attention's forward has to do, and its shared memory.
#pragma once

#include "cuda/tile.cuh"
#include "ops/attention/cuda/config.h"
#include "ops/attention/cuda/scores.cuh"

namespace suffuse {

template <class Config>
struct AttentionForwardShared {
  using S = typename Config::S;
  using Keys = Tile<S, Config::kKeys, Config::kD>;
  using Values = Tile<S, Config::kKeys, Config::kDv>;
  union {
    Tile<S, Config::kRows, Config::kD> queries;
    Tile<S, Config::kRows, Config::kDv, Config::kHalf ? TileOrder::rows : TileOrder::columns> out;
  };
  union {
    Keys keys;
    Values values;
  } slots[Config::kSlots];
  // Where results go: offsets of the head's first query. Kept here for the end, for registers are
  // few.
  int64_t result, lse;
  int rows;
};

// Work of one block: queries [first, first + kRows) of a head.
struct AttentionBlock {
  int64_t b;
  int h, index, first;
};

// The last queries come first: with a causal mask they see the most keys.
template <class Config>
SUFFUSE_DEVICE AttentionBlock attention_block(const AttentionParams& p) {
  const uint32_t blocks = static_cast<uint32_t>(attention_blocks(p, Config::kRows));
  const uint32_t heads = static_cast<uint32_t>(p.H);
  const uint32_t pair = blockIdx.x / blocks, index = blocks - 1 - blockIdx.x % blocks;
  return {pair / heads, static_cast<int>(pair % heads), static_cast<int>(index),
          static_cast<int>(index) * Config::kRows};
}

// The keys [x, y) that the next `queries` queries see any of, from the start of a tile.
template <int kKeys>
SUFFUSE_DEVICE int2 key_range(const ScoreTerms& t, int first, int queries) {
  const int begin = ::max(first + t.shift - t.left, 0), end = ::min(first + queries, t.queries);
  return {begin / kKeys * kKeys, ::min(end + t.shift + t.right, t.keys)};
}

// Rows of q that belong to no query: out 0, lse -inf. Those between a sequence's last query and the
// next sequence; where rows are packed also those before the first sequence and behind the last,
// and lse_head is the number of all rows. The blocks of a head take turns.
template <class S>
SUFFUSE_DEVICE void clear_vacant_rows(const AttentionParams& p, const AttentionSequence& s,
                                      const AttentionBlock& block, int blocks) {
  const int32_t* starts = p.layout.q_starts;
  int64_t begin = s.T, end = p.T;
  if (starts != nullptr) {
    end = (block.b + 1 < p.B ? starts[block.b + 1] : p.lse_head) - s.q_row;
    if (block.b == 0) begin = -s.q_row;
  }
  S* out = static_cast<S*>(p.out.data) + attention_query(p.out, s, 0) + block.h * p.out.head;
  float* lse = static_cast<float*>(p.lse) + attention_lse(p, s, block.h, 0);
  for (int64_t row = begin + block.index; row < end; row += blocks) {
    if (row >= 0 && row < s.T) continue;
    for (int64_t e = threadIdx.x; e < p.Dv; e += blockDim.x) out[row * p.out.row + e] = S{};
    if (threadIdx.x == 0) lse[row] = -__int_as_float(0x7f800000);
  }
}

}  // namespace suffuse
