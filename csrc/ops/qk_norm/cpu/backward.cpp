// The backward pass of qk_norm. With r = 1 / sqrt(mean(x^2) + eps) and g the gradient of the
// normalised head, rotated back:
//
//   grad_x = r g w - x r^3 mean(g w x),  grad_w = sum of g x r
#include "ops/qk_norm/cpu/heads-inl.h"
#include "ops/qk_norm/cpu/kernel.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace qk_norm {

// sums: the weight's gradient of this piece, or null.
template <class S, class T>
void heads_backward(const QkNormGradParams& g, int index, int64_t batch, int64_t time,
                    const TableRow<T>& table, PairAngles<T>& angles, T* sums) {
  using V = typename LanesOf<S>::type;
  const QkNormParams& p = g.forward;
  const QkNormHeads& side = p.sides[index];
  const HeadRows &out_rows = g.grad_out[index], &x_rows = g.grad_x[index];
  const S *x = first_head<const S>(side.x, batch, time),
          *grad_out = first_head<const S>(out_rows, batch, time);
  S* grad_x = first_head<S>(x_rows, batch, time);
  const T* weight = static_cast<const T*>(side.weight);
  const auto gradient = [&](int64_t i, int n, auto partial) {
    return load_columns<V, partial>(grad_out + i, n);
  };
  for (int64_t h = 0; h < side.heads; h++) {
    V squares = zero<V>(), products = zero<V>();
    rotate_head<V>(p, table, angles, gradient, [&](int64_t i, int n, auto partial, V back) {
      const V value = load_columns<V, partial>(x + i, n);
      squares = muladd(value, value, squares);
      products = muladd(back * weights<V, partial>(weight, i, n), value, products);
    });
    const T r = inverse_rms(p, reduce_add(squares));
    const V scale = r, mean = reduce_add(products) / static_cast<T>(p.columns) * r * r * r;
    rotate_head<V>(p, table, angles, gradient, [&](int64_t i, int n, auto partial, V back) {
      const V value = load_columns<V, partial>(x + i, n);
      const V slope = back * weights<V, partial>(weight, i, n);
      store_columns<partial>(grad_x + i, muladd(-value, mean, slope * scale), n);
      if (!sums) return;
      const V sum = load_columns<V, partial>(sums + i, n);
      store_columns<partial>(sums + i, muladd(back, value * scale, sum), n);
    });
    x += side.x.head;
    grad_out += out_rows.head;
    grad_x += x_rows.head;
  }
}

template <class S>
void piece_backward(const QkNormGradParams& g, int64_t piece) {
  using T = typename LanesOf<S>::number;
  const QkNormParams& p = g.forward;
  const int64_t each = qk_norm_piece(p), tokens = p.batch * p.length, first = piece * each;
  T* rows = static_cast<T*>(g.partials) + piece * QkNormParams::kSides * p.columns;
  for (int64_t i = 0; i < QkNormParams::kSides * p.columns; i++) rows[i] = 0;
  PairAngles<T> angles;
  for_tokens<T>(p, true, first, first + each < tokens ? first + each : tokens,
                [&](int64_t b, int64_t t, const auto& table) {
                  for (int i = 0; i < QkNormParams::kSides; i++) {
                    T* sums = g.grad_weight[i] ? rows + i * p.columns : nullptr;
                    heads_backward<S, T>(g, i, b, t, table, angles, sums);
                  }
                });
}

}  // namespace qk_norm

void qk_norm_bwd_range(const QkNormGradParams& g, int64_t begin, int64_t end) {
  visit_dtype(g.forward.dtype, [&](auto tag) {
    for (int64_t piece = begin; piece < end; piece++) {
      qk_norm::piece_backward<typename decltype(tag)::type>(g, piece);
    }
  });
}

void qk_norm_totals(const QkNormGradParams& g, int64_t pieces) {
  const int64_t columns = g.forward.columns;
  visit_dtype(g.forward.dtype, [&](auto tag) {
    using T = typename LanesOf<typename decltype(tag)::type>::number;
    for (int side = 0; side < QkNormParams::kSides; side++) {
      T* total = static_cast<T*>(g.grad_weight[side]);
      if (!total) continue;
      for (int64_t i = 0; i < columns; i++) total[i] = 0;
      for (int64_t piece = 0; piece < pieces; piece++) {
        const T* row =
            static_cast<const T*>(g.partials) + (piece * QkNormParams::kSides + side) * columns;
        for (int64_t i = 0; i < columns; i++) total[i] += row[i];
      }
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
