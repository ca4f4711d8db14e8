// The CPU kernels of causal_conv1d.
#pragma once

#include "common/isa.h"
#include "ops/causal_conv1d/params.h"

namespace suffuse {

// At least so many bytes of the calling thread's own, at a cache line; valid until its next call.
// Defined in bind.cpp, which is compiled for every CPU.
void* causal_conv1d_scratch(int64_t bytes);

// What is worked on at once. Where steps are adjacent: a few rows, in chunks of steps that stay in
// the cache. Where channels are: a panel of them, wide enough to read memory in order.
struct ConvBlocks {
  int64_t rows, row_steps, panel, panel_steps;
};
constexpr ConvBlocks kConvForward = {16, 2048, 512, 128};
constexpr ConvBlocks kConvBackward = {16, 512, 128, 16};
constexpr int64_t kConvUpdateChannels = 16;

inline bool conv_steps_adjacent(const CausalConv1dParams& p) { return p.x.time == 1; }

inline int64_t conv_pieces_of(int64_t whole, int64_t piece) { return (whole + piece - 1) / piece; }

inline int64_t conv_channel_blocks(const CausalConv1dParams& p, const ConvBlocks& blocks) {
  return conv_pieces_of(p.channels, conv_steps_adjacent(p) ? blocks.rows : blocks.panel);
}
inline int64_t conv_chunk(const CausalConv1dParams& p, const ConvBlocks& blocks) {
  return conv_steps_adjacent(p) ? blocks.row_steps : blocks.panel_steps;
}
inline int64_t conv_forward_units(const CausalConv1dParams& p) {
  return p.batch * conv_channel_blocks(p, kConvForward) *
         conv_pieces_of(p.length, conv_chunk(p, kConvForward));
}
inline int64_t conv_backward_units(const CausalConv1dParams& p) {
  return p.batch * conv_channel_blocks(p, kConvBackward);
}
inline int64_t conv_update_units(const CausalConv1dUpdateParams& p) {
  return p.batch * conv_pieces_of(p.channels, kConvUpdateChannels);
}

}  // namespace suffuse

// The units [begin, end) of conv_forward_units.
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_fwd_range,
                       (const CausalConv1dParams& p, int64_t begin, int64_t end), (p, begin, end))
// The units [begin, end) of conv_backward_units: all but the totals.
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_bwd_range,
                       (const CausalConv1dGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// Adds up the rows of partials, in their order, for the channels [begin, end).
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_totals,
                       (const CausalConv1dGradParams& g, int64_t begin, int64_t end),
                       (g, begin, end))
// The units [begin, end) of conv_update_units.
SUFFUSE_DECLARE_KERNEL(void, causal_conv1d_update_range,
                       (const CausalConv1dUpdateParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
