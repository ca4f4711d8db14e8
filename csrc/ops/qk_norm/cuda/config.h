// How the CUDA kernels of qk_norm are launched: plain functions of the params.
//
// A head belongs to a row of `lanes` threads with a slot of columns each (cuda/rotation.h): a part
// of a warp, or where it has more columns a whole block.
#pragma once

#include <cstdint>

#include "cuda/groups.h"
#include "cuda/launch_shape.h"
#include "cuda/rotation.h"
#include "ops/qk_norm/params.h"

namespace suffuse {

struct QkNormShape {
  static constexpr int kThreads = 128, kWideThreads = 256;
  static constexpr int kHeads = 4;         // that a row of threads takes, with the same angles
  static constexpr int kRounds = 8;        // heads that a row takes at least, backward
  static constexpr int64_t kBlocks = 512;  // at most, backward, for queries or keys
  static constexpr int kFinishThreads = 128;
};

SUFFUSE_HD inline int qk_norm_slots(const QkNormParams& p, int group) {
  return column_slots(static_cast<int>(p.columns), static_cast<int>(p.rotated), group);
}

// Threads of a row: a power of two up to 32, or all of a wide block.
SUFFUSE_HD inline int qk_norm_lanes(const QkNormParams& p, int group) {
  const int slots = qk_norm_slots(p, group);
  if (slots > 32) return QkNormShape::kWideThreads;
  int lanes = 1;
  while (lanes < slots) lanes *= 2;
  return lanes;
}
SUFFUSE_HD inline bool qk_norm_wide(const QkNormParams& p, int group) {
  return qk_norm_slots(p, group) > 32;
}
SUFFUSE_HD constexpr int qk_norm_threads(bool wide) {
  return wide ? QkNormShape::kWideThreads : QkNormShape::kThreads;
}

// Rows of threads that a token takes, for its queries and then its keys.
SUFFUSE_HD inline int64_t qk_norm_rows(const QkNormParams& p, int side) {
  return (p.sides[side].heads + QkNormShape::kHeads - 1) / QkNormShape::kHeads;
}

inline LaunchShape qk_norm_shape(const QkNormParams& p, int group, int64_t shared_bytes) {
  const int threads = qk_norm_threads(qk_norm_wide(p, group));
  const int64_t rows = p.batch * p.length * (qk_norm_rows(p, 0) + qk_norm_rows(p, 1));
  const int64_t each = threads / qk_norm_lanes(p, group);
  return {(rows + each - 1) / each, threads, static_cast<int32_t>(shared_bytes)};
}

// Backward: blocks of each side, and heads that a row of threads takes one after another. What they
// are depends on the shape alone.
SUFFUSE_HD inline int64_t qk_norm_blocks(const QkNormParams& p, int side, int group) {
  const int64_t heads = p.batch * p.length * p.sides[side].heads;
  const int64_t each = qk_norm_threads(qk_norm_wide(p, group)) / qk_norm_lanes(p, group) *
                       int64_t{QkNormShape::kRounds};
  const int64_t blocks = (heads + each - 1) / each;
  return blocks < QkNormShape::kBlocks ? blocks : QkNormShape::kBlocks;
}

// Numbers in a row of partials: two groups of each thread's columns.
SUFFUSE_HD inline int64_t qk_norm_row(const QkNormParams& p, int group) {
  return int64_t{2} * group * qk_norm_lanes(p, group);
}

// Sides whose weight has a gradient: only they have partials. Queries' come first.
SUFFUSE_HD inline int64_t qk_norm_partial_rows(const QkNormGradParams& g, int side, int group) {
  return g.grad_weight[side] ? qk_norm_blocks(g.forward, side, group) : 0;
}

inline LaunchShape qk_norm_bwd_shape(const QkNormGradParams& g, int group, int64_t shared_bytes) {
  const QkNormParams& p = g.forward;
  return {qk_norm_blocks(p, 0, group) + qk_norm_blocks(p, 1, group),
          qk_norm_threads(qk_norm_wide(p, group)), static_cast<int32_t>(shared_bytes)};
}

inline LaunchShape qk_norm_finish_shape(const QkNormParams& p, int group) {
  const int64_t row = qk_norm_row(p, group);
  return {(row + QkNormShape::kFinishThreads - 1) / QkNormShape::kFinishThreads,
          QkNormShape::kFinishThreads, 0, QkNormParams::kSides};
}

}  // namespace suffuse
