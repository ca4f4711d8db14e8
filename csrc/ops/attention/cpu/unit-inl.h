// Which block of queries a unit of the forward's work is.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "ops/attention/params.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

struct Unit {
  int64_t b, h, block;
};

// Sequence by sequence, head by head. The later a causal block is the more it costs, and it comes
// earlier, so that threads end together.
SUFFUSE_INLINE Unit unit_at(const AttentionParams& a, int64_t unit) {
  int64_t b = unit / a.blocks / a.H, blocks = a.blocks, first = b * a.H * blocks;
  if (a.block_starts != nullptr) {
    int64_t past = a.B;  // sequence b is in [b, past)
    for (b = 0; past - b > 1;) {
      const int64_t middle = (b + past) / 2;
      (a.block_starts[middle] * a.H <= unit ? b : past) = middle;
    }
    first = a.block_starts[b] * a.H;
    blocks = a.block_starts[b + 1] - a.block_starts[b];
  }
  const int64_t i = unit - first;
  return {b, i / blocks, blocks - 1 - i % blocks};
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
