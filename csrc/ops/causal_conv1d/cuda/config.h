// Launch shapes of the CUDA kernels of causal_conv1d: plain functions of the params.
#pragma once

#include <cstdint>

#include "cuda/launch_shape.h"
#include "ops/causal_conv1d/params.h"

namespace suffuse {

// Widths up to this have kernels of their own, in which every number is loaded once.
constexpr int kConvLags = 4;

struct ConvShape {
  // rows: a block has a window of one row, neighbouring items a thread
  static constexpr int kRowThreads = 64, kRowItems = 16, kRowTile = kRowThreads * kRowItems;
  static constexpr int kRowBlocks = 8;  // on a multiprocessor, for the registers of backward
  // columns: a warp has a run of steps of 64 channels, two a lane
  static constexpr int kColumnWarps = 8, kColumnThreads = 32 * kColumnWarps, kColumnSteps = 32,
                       kColumnChannels = 64, kColumnTile = kColumnWarps * kColumnSteps;
  // any: an element a thread
  static constexpr int kAnyThreads = 128, kAnyTile = 1024;
  static constexpr int kUpdateBlocks = 8;
  // the sum of partials: slices of the rows, each added up by the threads of one entry
  static constexpr int kSlices = 8, kSlots = 32, kFinishThreads = kSlices * kSlots;
};

enum class ConvPath {
  rows,     // steps are adjacent
  columns,  // channels are
  any       // either; any width, and double
};

SUFFUSE_HD inline bool conv_along_time(const CausalConv1dParams& p) { return p.x.time == 1; }

inline ConvPath conv_path(const CausalConv1dParams& p) {
  if (p.width > kConvLags || p.dtype == DType::f64) return ConvPath::any;
  return conv_along_time(p) ? ConvPath::rows : ConvPath::columns;
}

// The parts that time is cut into, a block each.
inline int64_t conv_pieces(const CausalConv1dParams& p) {
  using Shape = ConvShape;
  if (p.length == 0) return 0;
  switch (conv_path(p)) {
    case ConvPath::rows:  // the first window may start up to 31 bytes before the row
      return (p.length + 32 / sizeof_dtype(p.dtype) - 1 + Shape::kRowTile - 1) / Shape::kRowTile;
    case ConvPath::columns:
      return (p.length + Shape::kColumnTile - 1) / Shape::kColumnTile;
    case ConvPath::any:
      break;
  }
  return (p.length + Shape::kAnyTile - 1) / Shape::kAnyTile;
}

// Entries of a row of partials, and where those of a channel stand: as its elements do, so that
// neighbouring threads write neighbouring entries.
SUFFUSE_HD inline int64_t conv_entries(const CausalConv1dParams& p) {
  return p.channels * (p.width + 1);
}
SUFFUSE_HD inline int64_t conv_entry(const CausalConv1dParams& p, int64_t channel, int64_t tap) {
  return conv_along_time(p) ? channel * (p.width + 1) + tap : tap * p.channels + channel;
}

inline int64_t conv_channel_blocks(const CausalConv1dParams& p) {
  const int64_t each = conv_path(p) == ConvPath::columns ? ConvShape::kColumnChannels
                       : conv_along_time(p)              ? 1
                                                         : ConvShape::kAnyThreads;
  return (p.channels + each - 1) / each;
}

// Blocks of (batch, piece, channels): of the kernels of rows and columns, and of partial sums.
inline LaunchShape conv_tile_shape(const CausalConv1dParams& p, int64_t shared_bytes) {
  const ConvPath path = conv_path(p);
  const int threads = path == ConvPath::rows      ? ConvShape::kRowThreads
                      : path == ConvPath::columns ? ConvShape::kColumnThreads
                                                  : ConvShape::kAnyThreads;
  return {p.batch * conv_pieces(p) * conv_channel_blocks(p), threads,
          static_cast<int32_t>(shared_bytes)};
}

// A thread for each of `count` things.
inline LaunchShape conv_thread_shape(int64_t count) {
  return {(count + ConvShape::kAnyThreads - 1) / ConvShape::kAnyThreads, ConvShape::kAnyThreads, 0};
}

inline LaunchShape conv_finish_shape(const CausalConv1dGradParams& g, int64_t shared_bytes) {
  return {(conv_entries(g.forward) + ConvShape::kSlots - 1) / ConvShape::kSlots,
          ConvShape::kFinishThreads, static_cast<int32_t>(shared_bytes)};
}

}  // namespace suffuse
