// causal_conv1d backward, in the order of time: the gradients of inputs are complete width - 1
// steps after those of z that they need.
#include "ops/causal_conv1d/cpu/columns-inl.h"
#include "ops/causal_conv1d/cpu/kernel.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {

void causal_conv1d_bwd_range(const CausalConv1dGradParams& g, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const CausalConv1dParams& p = g.forward;
  const bool rows = conv_steps_adjacent(p);
  const int64_t blocks = conv_channel_blocks(p, kConvBackward);
  const int64_t block = rows ? kConvBackward.rows : kConvBackward.panel;
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename LanesOf<S>::type;
    using N = typename LanesOf<S>::number;
    causal_conv1d::for_width(p.width, [&](auto width) {
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t first = unit % blocks * block;
        const int64_t last = first + block < p.channels ? first + block : p.channels;
        const auto run = rows ? causal_conv1d::rows_backward<width.value, V, S, N>
                              : causal_conv1d::columns_backward<width.value, V, S, N>;
        run(g, unit / blocks, first, last);
      }
    });
  });
}

void causal_conv1d_totals(const CausalConv1dGradParams& g, int64_t begin, int64_t end) {
  const int64_t channels = g.forward.channels, width = g.forward.width;
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using N = typename LanesOf<typename decltype(tag)::type>::number;
    for (int64_t entry = begin * (width + 1); entry < end * (width + 1); entry++) {
      N total = 0;
      for (int64_t row = 0; row < g.partial_rows; row++) {
        total += static_cast<const N*>(g.partials)[row * channels * (width + 1) + entry];
      }
      const int64_t channel = entry / (width + 1), tap = entry % (width + 1);
      if (tap < width) {
        static_cast<N*>(g.grad_weight)[channel * width + tap] = total;
      } else {
        static_cast<N*>(g.grad_bias)[channel] = total;
      }
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
