// The last step of selective_scan's backward pass: partial sums to gradients.
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// Adds up the parts of one block of states, of kScanSteps steps from `begin` on: [time][states].
template <class V, class N>
SUFFUSE_INLINE void add_parts(N* to, const N* from, int64_t part, int64_t parts) {
  constexpr int kNumbers = kScanSteps * kScanSumStates;
  for (int i = 0; i < kNumbers; i += V::N) {
    V sum = zero<V>();
    for (int64_t k = 0; k < parts; k++) sum += load<V>(from + k * part + i);
    store(to + i, sum);
  }
}

// `count` steps from `begin` on: [part, block of states, time, state] to [state, time].
template <class V, class S, class N>
void project(const SelectiveScanGradParams& g, const void* sums, void* to, int64_t pair,
             int64_t begin, int count) {
  const SelectiveScanParams& p = g.forward;
  const int64_t part = scan_sums_size(p), block = scan_windows(p) * kScanSteps * kScanSumStates;
  const N* from = static_cast<const N*>(sums) + pair * g.parts * part + begin * kScanSumStates;
  S* result = static_cast<S*>(to) + pair * p.length * p.states + begin;
  N tile[kScanSteps * kScanSumStates], row[kScanSteps];
  int64_t n = 0;
  for (int64_t b = 0; b < scan_sum_blocks(p); b++, from += block) {
    add_parts<V>(tile, from, part, g.parts);
    const int64_t left = p.states - n, states = left >= 4 ? 4 : left >= 2 ? 2 : 1;
    for (int64_t k = 0; k < states; k++, n++) {
      for (int t = 0; t < kScanSteps; t++) row[t] = tile[t * kScanSumStates + k];
      for (int t = 0; t < count; t += V::N) {
        store(result + n * p.length + t, load<V>(row + t),
              static_cast<int>(smaller(V::N, count - t)));
      }
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
