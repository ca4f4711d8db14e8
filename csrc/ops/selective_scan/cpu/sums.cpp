// The last step of selective_scan's backward pass: partial sums to gradients.
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// `count` steps from `begin` on: [part, time, state] to [state, time].
template <class V, class S, class N>
void project(const SelectiveScanGradParams& g, const void* sums, void* to, int64_t pair,
             int64_t begin, int count) {
  const SelectiveScanParams& p = g.forward;
  const int64_t part = p.length * p.states;
  const N* from = static_cast<const N*>(sums) + pair * g.parts * part + begin * p.states;
  S* result = static_cast<S*>(to) + pair * part + begin;
  for (int64_t n = 0; n < p.states; n += V::N) {
    const int states = static_cast<int>(smaller(V::N, p.states - n));
    for (int t = 0; t < count; t += V::N) {
      const int steps = static_cast<int>(smaller(V::N, count - t));
      V row[V::N];
      for (int i = 0; i < V::N; i++) {
        row[i] = zero<V>();
        for (int64_t k = 0; i < steps && k < g.parts; k++) {
          row[i] += load<V>(from + k * part + (t + i) * p.states + n, states);
        }
      }
      transpose(row);
      for (int i = 0; i < states; i++) store(result + (n + i) * p.length + t, row[i], steps);
    }
  }
}

// to[i] = the sum of from[batch][i].
template <class N>
void add_rows(const void* from, void* to, int64_t batch, int64_t size, int64_t begin, int64_t end) {
  const N* rows = static_cast<const N*>(from);
  N* sums = static_cast<N*>(to);
  for (int64_t i = begin; i < end; i++) sums[i] = 0;
  for (int64_t b = 0; b < batch; b++) {
    for (int64_t i = begin; i < end; i++) sums[i] += rows[b * size + i];
  }
}

}  // namespace selective_scan

void selective_scan_project_range(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const SelectiveScanParams& p = g.forward;
  const int64_t tiles = scan_windows(p);
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using V = typename selective_scan::LanesOf<S>::type;
    using N = typename selective_scan::LanesOf<S>::number;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t pair = unit / tiles, first = unit % tiles * kScanSteps;
      const int count = static_cast<int>(selective_scan::smaller(kScanSteps, p.length - first));
      if (p.b.varying) selective_scan::project<V, S, N>(g, g.sums_b, g.grad_b, pair, first, count);
      if (p.c.varying) selective_scan::project<V, S, N>(g, g.sums_c, g.grad_c, pair, first, count);
    }
  });
}

void selective_scan_add_rows(const SelectiveScanGradParams& g, int64_t begin, int64_t end) {
  const SelectiveScanParams& p = g.forward;
  visit_dtype(p.dtype, [&](auto tag) {
    using N = typename selective_scan::LanesOf<typename decltype(tag)::type>::number;
    const auto add = [&](const void* from, void* to, int64_t each) {
      selective_scan::add_rows<N>(from, to, p.batch, p.channels * each, begin * each, end * each);
    };
    add(g.sums_a, g.grad_a, p.states);
    add(g.sums_skip, g.grad_skip, 1);
    add(g.sums_bias, g.grad_bias, 1);
    if (!p.b.varying) add(g.sums_b, g.grad_b, p.states);
    if (!p.c.varying) add(g.sums_c, g.grad_c, p.states);
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
