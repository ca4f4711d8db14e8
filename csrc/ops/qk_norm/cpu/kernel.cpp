// qk_norm: a head is read twice, the second time from the first cache.
#include "ops/qk_norm/cpu/kernel.h"

#include "ops/qk_norm/cpu/heads-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace qk_norm {

template <class V, class S>
SUFFUSE_INLINE V sum_of_squares(const S* x, int64_t columns) {
  V sums[2] = {zero<V>(), zero<V>()};  // two chains of additions
  int64_t i = 0;
  for (; i + 2 * V::N <= columns; i += 2 * V::N) {
    const V a = load<V>(x + i), b = load<V>(x + i + V::N);
    sums[0] = muladd(a, a, sums[0]);
    sums[1] = muladd(b, b, sums[1]);
  }
  for_columns<V>(columns - i, [&](int64_t k, int n, auto partial) {
    const V a = load_columns<V, partial>(x + i + k, n);
    sums[0] = muladd(a, a, sums[0]);
  });
  return sums[0] + sums[1];
}

template <class S, class T>
void normalise_heads(const QkNormParams& p, const QkNormHeads& side, int64_t batch, int64_t time,
                     const TableRow<T>& table, PairAngles<T>& angles) {
  using V = typename LanesOf<S>::type;
  const S* x = first_head<const S>(side.x, batch, time);
  S* out = first_head<S>(side.out, batch, time);
  const T* weight = static_cast<const T*>(side.weight);
  for (int64_t h = 0; h < side.heads; h++, x += side.x.head, out += side.out.head) {
    const V scale = inverse_rms(p, reduce_add(sum_of_squares<V>(x, p.columns)));
    rotate_head<V>(
        p, table, angles,
        [&](int64_t i, int n, auto partial) {
          const V value = load_columns<V, partial>(x + i, n) * scale;
          return value * weights<V, partial>(weight, i, n);
        },
        [&](int64_t i, int n, auto partial, V value) {
          store_columns<partial>(out + i, value, n);
        });
  }
}

}  // namespace qk_norm

void qk_norm_fwd_range(const QkNormParams& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = typename LanesOf<S>::number;
    PairAngles<T> angles;
    qk_norm::for_tokens<T>(p, false, begin, end, [&](int64_t b, int64_t t, const auto& table) {
      for (const QkNormHeads& side : p.sides) {
        qk_norm::normalise_heads<S, T>(p, side, b, t, table, angles);
      }
    });
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
