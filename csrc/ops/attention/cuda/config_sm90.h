// How attention's forward is cut for sm_90a, and which calls it takes: plain functions, for the
// launcher, the kernel and tests.
//
// A block takes kRows queries of one head, 64 for each warpgroup that multiplies, against the keys
// that they see, kKeys at a time. Columns beyond D are zeros.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/launch_shape.h"
#include "cuda/tensor_map.h"
#include "ops/attention/cuda/config.h"
#include "ops/attention/params.h"

namespace suffuse {

// kGeneral has softcap, ALiBi, sinks and any scale.
template <class Element, int kHeadDim, bool kGeneral_>
struct AttentionForwardSm90 {
  using S = Element;
  static constexpr int kD = kHeadDim;
  static constexpr bool kGeneral = kGeneral_;
  // What a thread's registers hold: kD / 2 sums, kKeys / 2 scores and kKeys / 4 of weights.
  static constexpr int kConsumers = kD <= 64 ? 3 : 2;
  static constexpr int kKeys = kD <= 128 ? 128 : 64;
  static constexpr int kStages = kD <= 64 ? 3 : 2;  // of keys, and as many of values
  static constexpr int kRows = 64 * kConsumers, kThreads = 128 * (1 + kConsumers);
  // Of a thread after the warpgroup that loads has given most of its registers to the others.
  static constexpr int kLoaderRegisters = kConsumers == 2 ? 24 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 240 : 160;
};

// Whether TMA takes the tensor as [batch, head, row, column].
inline bool attention_fits_tensor_map(const AttentionTensor& t, int64_t batches, int64_t rows,
                                      int64_t heads) {
  const auto fits = [](int64_t size, int64_t stride) {
    constexpr int64_t kMost = (int64_t{1} << 40) / 2;  // elements
    return size == 1 || (stride > 0 && stride < kMost);
  };
  return batches > 0 && rows > 0 && heads > 0 && fits(batches, t.batch) && fits(rows, t.row) &&
         fits(heads, t.head);
}

// The head dim of the sm_90a kernel that takes the call, or 0: the kernel of sm_80 takes it.
// capability: of the device, 90 for 9.0, the only one that runs code for sm_90a. Where more than a
// quarter of a head would be zeros, the other kernel has a narrower one.
constexpr int kAttentionSm90Heads[] = {64, 128, 256};
inline int attention_sm90_head(const AttentionParams& p, int capability) {
  const AttentionLayout& l = p.layout;
  const bool same_rows = l.q_starts == nullptr && l.k_starts == nullptr && l.q_used == nullptr &&
                         l.k_used == nullptr && l.cache_index == nullptr && l.left_pad == nullptr &&
                         l.pages == nullptr;
  const bool half = p.dtype == DType::bf16 || p.dtype == DType::f16;
  if (capability != 90 || !half || !same_rows || attention_copy_bytes(p) != 16 ||
      p.scores.bias_kind != AttentionBias::none || p.scores.dropout > 0 ||
      !attention_fits_tensor_map(p.q, p.B, p.T, p.H) ||
      !attention_fits_tensor_map(p.k, p.B, p.S, p.G) ||
      !attention_fits_tensor_map(p.v, p.B, p.S, p.G) ||
      !attention_fits_tensor_map(p.out, p.B, p.T, p.H)) {
    return 0;
  }
  const int64_t narrow = p.D < p.Dv ? p.D : p.Dv, wide = p.D < p.Dv ? p.Dv : p.D;
  // With features, the widest would spill registers.
  const int widest = attention_is_general(p) ? 128 : 256;
  for (int head : kAttentionSm90Heads) {
    if (wide <= head && head <= widest) return 4 * narrow >= 3 * head ? head : 0;
  }
  return 0;
}

// A tensor in dimensions column, row, head and batch, in boxes of `box_rows` rows of 128 bytes.
inline TensorLayout attention_tensor_layout(const AttentionTensor& t, DType dtype, int64_t columns,
                                            int64_t rows, int64_t heads, int64_t batches,
                                            int box_rows) {
  const auto bytes = [](int64_t size, int64_t stride) {
    return static_cast<uint64_t>(size == 1 ? 16 : 2 * stride);  // of one, any stride will do
  };
  return {t.data,
          dtype == DType::bf16 ? TensorElement::bf16 : TensorElement::f16,
          4,
          {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
           static_cast<uint64_t>(heads), static_cast<uint64_t>(batches)},
          {bytes(rows, t.row), bytes(heads, t.head), bytes(batches, t.batch)},
          {64, static_cast<uint32_t>(box_rows), 1, 1},
          gpu::Swizzle::bytes128};
}

struct AttentionSm90Maps {
  TensorLayout q, k, v, out;
};
template <class Config>
AttentionSm90Maps attention_sm90_maps(const AttentionParams& p) {
  const auto layout = [&](const AttentionTensor& t, int64_t columns, int64_t rows, int64_t heads,
                          int box_rows) {
    return attention_tensor_layout(t, p.dtype, columns, rows, heads, p.B, box_rows);
  };
  return {layout(p.q, p.D, p.T, p.H, 64), layout(p.k, p.D, p.S, p.G, Config::kKeys),
          layout(p.v, p.Dv, p.S, p.G, Config::kKeys), layout(p.out, p.Dv, p.T, p.H, 64)};
}

template <class Config>
struct AttentionSm90Shared;
template <class Config>
LaunchShape attention_sm90_shape(const AttentionParams& p) {
  return {p.B * p.H * attention_blocks(p, Config::kRows), Config::kThreads,
          static_cast<int32_t>(sizeof(AttentionSm90Shared<Config>))};
}

}  // namespace suffuse
