// Launches the CUDA kernels of qk_norm.
#include <string>

#include "common/error.h"
#include "cuda/launcher.cuh"
#include "ops/qk_norm/cuda/kernel.cuh"
#include "ops/qk_norm/cuda/launch.h"

namespace suffuse {
namespace {

void check_size(const QkNormParams& p) {
  const int group = group_size(sizeof_dtype(p.dtype));
  const int64_t most = int64_t{2} * group * (QkNormShape::kWideThreads - 1);
  if (p.columns > most) {
    throw Error("qk_norm: q: expected at most " + std::to_string(most) +
                " columns of a head on CUDA, got " + std::to_string(p.columns));
  }
  const int64_t heads = p.sides[0].heads + p.sides[1].heads;
  if (p.batch * p.length > INT32_MAX || heads > INT32_MAX ||
      p.batch * p.length * heads > INT32_MAX) {
    throw Error("qk_norm: q: expected at most 2147483647 heads of all tokens on CUDA, got " +
                std::to_string(p.batch * p.length) + " tokens of " + std::to_string(heads));
  }
}

}  // namespace

int64_t qk_norm_partials(const QkNormGradParams& g) {
  const int group = group_size(sizeof_dtype(g.forward.dtype));
  return (qk_norm_partial_rows(g, 0, group) + qk_norm_partial_rows(g, 1, group)) *
         qk_norm_row(g.forward, group);
}

void qk_norm_fwd_cuda(const QkNormParams& p, void* stream) {
  check_size(p);
  visit_dtype(p.dtype, [&](auto s) {
    qk_norm_forward<typename decltype(s)::type>(p, Launcher("qk_norm", stream));
  });
}

void qk_norm_bwd_cuda(const QkNormGradParams& g, void* stream) {
  check_size(g.forward);
  visit_dtype(g.forward.dtype, [&](auto s) {
    qk_norm_backward<typename decltype(s)::type>(g, Launcher("qk_norm", stream));
  });
}

}  // namespace suffuse
