// How attention is cut for a GPU: plain functions, for launchers, kernels and tests.
//
// A block takes kRows queries of one head against the keys that they see, kKeys at a time. Head
// dims are the next of the sizes below; columns beyond D are zeros.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/launch_shape.h"
#include "ops/attention/params.h"

namespace suffuse {

// Features that need not be there: kGeneral has bias, ALiBi, softcap, sinks, dropout, pages, and
// rows at any alignment. kTf32: products of float are rounded to tf32; else each is made of three,
// which makes up for the rounding.
template <class Element, int kHeadDim, int kValueDim, bool kGeneral_, bool kTf32_ = false>
struct AttentionForward {
  using S = Element;
  static constexpr int kD = kHeadDim, kDv = kValueDim;
  static constexpr bool kGeneral = kGeneral_, kTf32 = kTf32_, kHalf = sizeof(S) == 2;
  static constexpr int kWide = kD > kDv ? kD : kDv;

  // A warp with 32 rows reads an operand from shared memory for twice as many products, where the
  // registers suffice.
  static constexpr int kRowsOfWarp = kHalf && !kGeneral && kWide <= 128 ? 32 : 16;
  static constexpr int kRows = kHalf ? 128 : 64, kWarps = kRows / kRowsOfWarp;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kTilesM = kRowsOfWarp / 16;
  static constexpr int kKeys = kHalf         ? (kWide > 192 ? 32 : 64)
                               : kWide > 192 ? 16
                               : kWide > 64  ? 32
                                             : 64;
  // Tiles of keys and of values take turns in them. Two blocks of 128 columns fit into the shared
  // memory of an sm_80, one of 256 into 99 KiB.
  static constexpr int kSlots = kWide <= 64 ? 4 : kWide <= 96 ? 3 : 2;
  static constexpr bool kQueriesInRegisters = kHalf && kD <= 64;
};

// The head dim that a kernel is made for, or 0.
constexpr int kAttentionHeads[] = {32, 64, 96, 128, 192, 256};
inline int attention_head(const AttentionParams& p) {
  const int64_t dim = p.D > p.Dv ? p.D : p.Dv;
  for (int head : kAttentionHeads) {
    if (dim <= head) return head;
  }
  return 0;
}

// The largest copy, 16, 4 or sizeof(element) bytes, that all rows start and end at multiples of.
SUFFUSE_HD inline int attention_copy_bytes(const AttentionParams& p) {
  const int64_t size = sizeof_dtype(p.dtype);
  uint64_t all = static_cast<uint64_t>(p.D * size) | static_cast<uint64_t>(p.Dv * size);
  for (const AttentionTensor* t : {&p.q, &p.k, &p.v, &p.out}) {
    all |= reinterpret_cast<uintptr_t>(t->data) | static_cast<uint64_t>(t->batch * size) |
           static_cast<uint64_t>(t->row * size) | static_cast<uint64_t>(t->head * size);
  }
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : static_cast<int>(size);
}

inline bool attention_is_general(const AttentionParams& p) {
  const AttentionScores& s = p.scores;
  return s.softcap > 0 || s.bias_kind != AttentionBias::none || s.alibi != nullptr ||
         s.sinks != nullptr || s.dropout > 0 || p.layout.pages != nullptr || !(s.scale > 0) ||
         attention_copy_bytes(p) != 16;
}

// Blocks: those of a head, then heads, then the batch.
SUFFUSE_HD inline int64_t attention_blocks(const AttentionParams& p, int rows) {
  return (p.T + rows - 1) / rows;
}

template <class Config>
struct AttentionForwardShared;
template <class Config>
LaunchShape attention_forward_shape(const AttentionParams& p) {
  return {p.B * p.H * attention_blocks(p, Config::kRows), Config::kThreads,
          static_cast<int32_t>(sizeof(AttentionForwardShared<Config>))};
}

}  // namespace suffuse
