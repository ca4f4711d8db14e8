// rotary: token by token, with the heads of a token next to each other.
#include "ops/rotary/cpu/kernel.h"

#include <cstring>

#include "simd/rotation.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace {

template <class S, class C>
void rotate_token(const RotaryParams& p, int64_t batch, int64_t time,
                  PairAngles<typename LanesOf<S>::number>& angles) {
  using V = typename LanesOf<S>::type;
  const int64_t row = batch * p.table_batch + rotary_position(p, batch, time) * p.table_row;
  const TableRow<C> table = {static_cast<const C*>(p.cos) + row, static_cast<const C*>(p.sin) + row,
                             p.rotated / 2, p.interleaved, p.inverse};
  const S* x = static_cast<const S*>(p.x.data) + batch * p.x.batch + time * p.x.time;
  S* out = static_cast<S*>(p.out.data) + batch * p.out.batch + time * p.out.time;
  const size_t rest = static_cast<size_t>(p.columns - p.rotated) * sizeof(S);
  for (int64_t h = 0; h < p.heads; h++, x += p.x.head, out += p.out.head) {
    rotate_columns<V>(
        table, angles,
        [&](int64_t i, int n, auto partial) { return load_columns<V, partial>(x + i, n); },
        [&](int64_t i, int n, auto partial, V value) {
          store_columns<partial>(out + i, value, n);
        });
    if (x != out && rest > 0) memcpy(out + p.rotated, x + p.rotated, rest);
  }
}

template <class S, class C>
void rotate_tokens(const RotaryParams& p, int64_t begin, int64_t end) {
  PairAngles<typename LanesOf<S>::number> angles;
  int64_t batch = begin / p.length, time = begin % p.length;
  for (int64_t index = begin; index < end; index++) {
    rotate_token<S, C>(p, batch, time, angles);
    if (++time == p.length) {
      time = 0;
      batch++;
    }
  }
}

}  // namespace

void rotary_range(const RotaryParams& p, int64_t begin, int64_t end) {
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (sizeof(S) == 2 && p.table_dtype == DType::f32) {
      rotate_tokens<S, typename LanesOf<S>::number>(p, begin, end);
    } else {
      rotate_tokens<S, S>(p, begin, end);
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
