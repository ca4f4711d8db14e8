// The CPU kernels of qk_norm.
#pragma once

#include "common/isa.h"
#include "ops/qk_norm/params.h"

namespace suffuse {

// Tokens whose weight gradients are added up in one row of partials: enough to make the rows few.
inline int64_t qk_norm_piece(const QkNormParams& p) {
  const int64_t token = (p.sides[0].heads + p.sides[1].heads) * p.columns;
  return 32768 / (token + 1) + 1;
}
inline int64_t qk_norm_pieces(const QkNormParams& p) {
  const int64_t piece = qk_norm_piece(p);
  return (p.batch * p.length + piece - 1) / piece;
}

}  // namespace suffuse

// The tokens [begin, end) of batch x time, with all their heads.
SUFFUSE_DECLARE_KERNEL(void, qk_norm_fwd_range, (const QkNormParams& p, int64_t begin, int64_t end),
                       (p, begin, end))
// The pieces [begin, end) of tokens. partials: [pieces, 2, columns].
SUFFUSE_DECLARE_KERNEL(void, qk_norm_bwd_range,
                       (const QkNormGradParams& g, int64_t begin, int64_t end), (g, begin, end))
// Adds up the rows of partials, in their order.
SUFFUSE_DECLARE_KERNEL(void, qk_norm_totals, (const QkNormGradParams& g, int64_t pieces),
                       (g, pieces))
