// linear_scan: every unit of channels goes along time by itself.
#include "ops/linear_scan/cpu/kernel.h"

#include "ops/linear_scan/cpu/panel-inl.h"
#include "ops/linear_scan/cpu/segments-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace linear_scan {

template <class V, class A, class S, class N, bool complex>
void scan_block(const LinearScanWork& p, int64_t batch, int64_t first, int64_t end) {
  for (int64_t c = first; c < end; c += V::N) {
    const Lanes at{batch, c, static_cast<int>(end - c < V::N ? end - c : V::N)};
    if (p.a.time == 0) {
      scan_lanes<V, A, S, N, complex, true>(p, at);
    } else {
      scan_lanes<V, A, S, N, complex, false>(p, at);
    }
  }
}

template <class A, class S>
void scan_unit(const LinearScanWork& p, int64_t unit) {
  using V = typename LanesOf<S>::type;
  using N = typename LanesOf<S>::number;
  const int64_t blocks = (p.channels + p.width - 1) / p.width, batch = unit / blocks;
  const int64_t first = unit % blocks * p.width;
  const int64_t end = first + p.width < p.channels ? first + p.width : p.channels;
  if (linear_scan_in_panels(p)) {
    if (p.a.time == 0) return scan_panel<V, A, S, N, true>(p, batch, first, end - first);
    return scan_panel<V, A, S, N, false>(p, batch, first, end - first);
  }
  if constexpr (sizeof(S) > 2) {
    if (p.complex) return scan_block<V, A, S, N, true>(p, batch, first, end);
  }
  scan_block<V, A, S, N, false>(p, batch, first, end);
}

template <class A, class S>
void scan_phase(const LinearScanWork& p, LinearScanPhase phase, int64_t unit) {
  using V = typename LanesOf<S>::type;
  using N = typename LanesOf<S>::number;
  if constexpr (sizeof(S) > 2) {
    if (p.complex) return segment_unit<V, A, S, N, true>(p, phase, unit);
  }
  segment_unit<V, A, S, N, false>(p, phase, unit);
}

// Calls fn(TypeTag<A>, TypeTag<S>) with the types of a, and of x and h, in memory.
template <class Fn>
SUFFUSE_INLINE void visit_types(const LinearScanWork& p, Fn fn) {
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (sizeof(S) == 2 && p.a_dtype == DType::f32) {
      fn(TypeTag<typename LanesOf<S>::number>(), tag);
    } else {
      fn(tag, tag);
    }
  });
}

}  // namespace linear_scan

void linear_scan_range(const LinearScanWork& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  linear_scan::visit_types(p, [&](auto a, auto x) {
    for (int64_t unit = begin; unit < end; unit++) {
      linear_scan::scan_unit<typename decltype(a)::type, typename decltype(x)::type>(p, unit);
    }
  });
}

void linear_scan_phase(const LinearScanWork& p, LinearScanPhase phase, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  linear_scan::visit_types(p, [&](auto a, auto x) {
    for (int64_t unit = begin; unit < end; unit++) {
      linear_scan::scan_phase<typename decltype(a)::type, typename decltype(x)::type>(p, phase,
                                                                                      unit);
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
