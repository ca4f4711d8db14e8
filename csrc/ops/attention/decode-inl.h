// How a call with few queries is cut into units and run on the CPU. Part of the files that bind
// attention, which have included torch.
#pragma once

#include "ops/attention/arguments-inl.h"
#include "ops/attention/cpu/decode.h"
#include "ops/attention/plan-inl.h"
#include "torch/empty.h"

namespace suffuse {
namespace {

constexpr int64_t kDecodeRows = 16;    // rows of one kv head up to which this is the faster way,
constexpr int64_t kDecodeQueries = 8;  // if there are no more queries than these; the tiled kernel
                                       // uses a lane for each
constexpr int64_t kDecodeKeys = 32;    // keys from which on it is worth its partial results

inline bool attention_few_rows(const AttentionParams& p) {
  const AttentionScores& s = p.scores;
  return p.T <= kDecodeQueries && p.T * (p.H / p.G) <= kDecodeRows && p.S >= kDecodeKeys &&
         s.bias_kind == AttentionBias::none && s.dropout == 0;
}

// Keys of a chunk, by shape alone; `splits` > 0 asks for that many chunks.
int64_t decode_chunk(int64_t keys, int64_t splits) {
  constexpr int64_t kBlock = 64, kLeast = 256, kMost = 2048, kChunks = 16;
  const int64_t whole = ceil_div(ceil_div(keys, splits > 0 ? splits : kChunks), kBlock) * kBlock;
  return std::clamp(whole, splits > 0 ? kBlock : kLeast, kMost);
}

void run_decode(const AttentionParams& a, const Tensor& like, ScalarType wide, int64_t splits) {
  AttentionDecodeParams p{};
  p.forward = a;
  p.chunk = decode_chunk(a.S, splits);
  p.chunks = std::max<int64_t>(1, ceil_div(a.S, p.chunk));
  const int64_t sizes[] = {a.B * p.chunks * a.H * a.T * attention_decode_row(a.Dv)};
  const Tensor workspace = empty(like, Sizes(sizes, 1), wide);
  p.workspace = workspace.mutable_data_ptr();
  run_units(a.B * p.chunks, std::min(p.chunk, a.S) * a.H * a.T * (a.D + a.Dv),
            [&](int64_t begin, int64_t end) { attention_decode_range(p, begin, end); });
  run_units(a.B * a.H * a.T, p.chunks * a.Dv,
            [&](int64_t begin, int64_t end) { attention_decode_merge_range(p, begin, end); });
}

}  // namespace
}  // namespace suffuse
