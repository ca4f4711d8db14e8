// causal_conv1d forward.
#include "ops/causal_conv1d/cpu/kernel.h"

#include "ops/causal_conv1d/cpu/columns-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {

void causal_conv1d_fwd_range(const CausalConv1dParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const bool rows = conv_steps_adjacent(p);
  const int64_t chunk = conv_chunk(p, kConvForward), chunks = conv_pieces_of(p.length, chunk);
  const int64_t block = rows ? kConvForward.rows : kConvForward.panel;
  const int64_t blocks = conv_channel_blocks(p, kConvForward);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename LanesOf<S>::type;
    using N = typename LanesOf<S>::number;
    causal_conv1d::for_width(p.width, [&](auto width) {
      for (int64_t unit = begin; unit < end; unit++) {
        // Neighbouring units are neighbours in memory: along time, or the panels of a few steps.
        const int64_t in_batch = unit % (chunks * blocks), batch = unit / (chunks * blocks);
        const int64_t t = (rows ? in_batch % chunks : in_batch / blocks) * chunk;
        const int64_t first = (rows ? in_batch / chunks : in_batch % blocks) * block;
        const int64_t last = first + block < p.channels ? first + block : p.channels;
        const int64_t until = t + chunk < p.length ? t + chunk : p.length;
        const auto run = rows ? causal_conv1d::rows_forward<width.value, V, S, N>
                              : causal_conv1d::columns_forward<width.value, V, S, N>;
        run(p, batch, first, last, t, until);
      }
    });
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
