// How decoding is cut for a GPU: plain functions, for launchers, kernels and tests.
#pragma once

#include "ops/attention/cuda/config.h"
#include "ops/attention/decode.h"

namespace suffuse {

constexpr int kAttentionDecodeRows = 16;  // queries times heads of a block

template <class Element, int kHeadDim>
struct AttentionDecode {
  using S = Element;
  static constexpr int kD = kHeadDim, kRows = kAttentionDecodeRows, kKeys = 16, kStages = 2;
  // Keys and values of a stage: warps as there is room for in 99 KiB.
  static constexpr int kStageBytes = 2 * kKeys * kD * static_cast<int>(sizeof(S));
  static constexpr int kWarps = kStageBytes <= 8192 ? 4 : kStageBytes <= 16384 ? 2 : 1;
  static constexpr int kThreads = 32 * kWarps;
};

struct AttentionCombine {
  static constexpr int kRows = 4, kThreads = 32 * kRows;
};

// Beyond so many queries times heads of a KV head, attention_fwd_cuda is faster.
constexpr int64_t kAttentionDecodeMost = 4 * kAttentionDecodeRows;
inline bool attention_is_decode(const AttentionParams& p) {
  return p.T * (p.H / p.G) <= kAttentionDecodeMost;
}

SUFFUSE_HD inline int64_t attention_decode_tiles(const AttentionParams& p) {
  return (p.T * (p.H / p.G) + kAttentionDecodeRows - 1) / kAttentionDecodeRows;
}

// Cuts the keys into `splits` chunks; 0: as many as fill a large GPU twice, of 256 keys at least.
// By shape alone: the order of addition hangs on it.
inline void attention_cut_keys(AttentionDecodeParams& d, int64_t splits) {
  constexpr int64_t kBlocks = 264, kLeast = 256, kStep = 64;  // whole tiles of all warps
  const AttentionParams& p = d.forward;
  const int64_t blocks = p.B * p.G * attention_decode_tiles(p);
  if (splits == 0) {
    splits = blocks > 0 ? (kBlocks + blocks - 1) / blocks : 1;
    if (splits * kLeast > p.S) splits = (p.S + kLeast - 1) / kLeast;
  }
  const int64_t chunk = splits > 0 ? (p.S + splits - 1) / splits : p.S;
  d.chunk = chunk > 0 ? (chunk + kStep - 1) / kStep * kStep : kStep;
  d.chunks = p.S > 0 ? (p.S + d.chunk - 1) / d.chunk : 1;
}

inline int64_t attention_decode_floats(const AttentionDecodeParams& d) {
  const AttentionParams& p = d.forward;
  return p.B * d.chunks * p.H * p.T * attention_decode_row(p.Dv);
}

template <class Config>
struct AttentionDecodeShared;
template <class Config>
LaunchShape attention_decode_shape(const AttentionDecodeParams& d) {
  const AttentionParams& p = d.forward;
  return {p.B * p.G * d.chunks * attention_decode_tiles(p), Config::kThreads,
          static_cast<int32_t>(sizeof(AttentionDecodeShared<Config>))};
}
inline LaunchShape attention_combine_shape(const AttentionDecodeParams& d) {
  const AttentionParams& p = d.forward;
  return {(p.B * p.H * p.T + AttentionCombine::kRows - 1) / AttentionCombine::kRows,
          AttentionCombine::kThreads, 0};
}

}  // namespace suffuse
