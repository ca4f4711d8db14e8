// The backward pass of one panel and key block: the weights P again from the log-sum-exp, then
// dS = P (dO V^T - delta), dV += P^T dO, dK += dS^T Q, dQ += dS K.
#pragma once

#include "ops/attention/cpu/bias_gradient-inl.h"
#include "ops/attention/cpu/modifiers-inl.h"
#include "ops/attention/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

template <class N>
struct Panel {
  N *qt, *gt, *dqt;  // [D][query], [Dv][query], [D][query]: Q^T, dO^T, dQ^T
  N *q, *g;          // [query][padded D], [query][padded Dv]: Q and dO
  N *lse, *delta;    // [query]: in base 2, +inf for a row without keys; rowsum(dO O) - grad_lse
  int64_t first, queries;
  int width;
};

template <class N>
struct Work {
  Panel<N>* panels;
  int64_t count;
  N *p, *ds;               // [key][query] of one panel and key block
  N *k, *v;                // [key][D], [key][Dv]
  N *dk, *dv;              // [S][padded D], [S][padded Dv]
  int64_t D, Dv, Dl, Dvl;  // l: padded to whole vectors
  Scale<N> scale;
  N *bias, *keep, *derivative;  // see Modifiers; the softcap's derivative [key][query]
  Modifiers<N> modifiers;
  BiasGradient<N> bias_gradient;
};

// dS = P (keep dP - delta), and what of P reaches the values, P keep. ds holds dP.
template <int W, class N>
__attribute__((noinline)) void drop_tile(N* p, N* ds, const N* keep, const N* delta, int first) {
  using V = Vec<N>;
  constexpr int M = kTile<W>, L = V::N;
  for (int i = 0; i < M; ++i)
    for (int j = first; j < W; ++j) {
      const int64_t at = (i * W + j) * L;
      const V weight = load<V>(p + at), kept = load<V>(keep + at);
      store(ds + at, weight * (load<V>(ds + at) * kept - load<V>(delta + j * L)));
      store(p + at, weight * kept);
    }
}

// P and dS of the keys [key, key + M) for the vectors from J0 on; dS before the softcap.
template <bool kModified, int J0, int W, class N>
SUFFUSE_INLINE void gradient_tile(const Work<N>& w, const Panel<N>& n, const Visible& seen,
                                  int64_t key) {
  using V = Vec<N>;
  constexpr int M = kTile<W>, L = V::N;
  N *const p = w.p + key * W * L, *const ds = w.ds + key * W * L;
  const V factor(kModified ? N(1) : w.scale.factor);
  V x[M][W];
  clear(x);
  multiply<J0>(x, w.k + key * w.D, w.D, 1, n.qt, W * L, w.D);
  if constexpr (kModified) {
    N* const derivative = w.derivative == nullptr ? nullptr : w.derivative + key * W * L;
    to_scores<J0>(x, w.modifiers, ds, derivative, key);
  }
  mask<J0>(x, seen, key);
#pragma GCC unroll 4
  for (int j = J0; j < W; ++j) {
    const V lse = -load<V>(n.lse + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) store(p + (i * W + j) * L, exp2_fast(muladd(x[i][j], factor, lse)));
  }
  clear(x);
  multiply<J0>(x, w.v + key * w.Dv, w.Dv, 1, n.gt, W * L, w.Dv);
  if constexpr (kModified) {
    if (w.modifiers.keep != nullptr) {
      store_tile<J0>(ds, x);
      return drop_tile<W>(p, ds, w.modifiers.keep + key * W * L, n.delta, J0);
    }
  }
#pragma GCC unroll 4
  for (int j = J0; j < W; ++j) {
    const V delta = load<V>(n.delta + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const int64_t at = (i * W + j) * L;
      store(ds + at, load<V>(p + at) * (x[i][j] - delta));
    }
  }
}

// out[key][c] += sum over queries of a[key][query] b[query][c], C vectors of columns, `rows` keys
// of one tile; out and b have rows of ld.
template <int C, int M, class N>
SUFFUSE_INLINE void outer_columns(N* out, const N* a, int64_t lda, const N* b, int64_t ld,
                                  int64_t queries, int64_t rows) {
  using V = Vec<N>;
  V sum[M][C];
  clear(sum);
  multiply<0>(sum, a, lda, 1, b, ld, queries);
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    if (i >= rows) break;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      N* const x = out + i * ld + c * V::N;
      store(x, load<V>(x) + sum[i][c]);
    }
  }
}
// The same for all columns and keys, in the tiles of P, whose hidden vectors are not written;
// hidden queries are skipped by whole vectors.
template <int W, class N>
SUFFUSE_INLINE void outer(N* out, const N* a, const N* b, int64_t ld, int64_t columns,
                          const Panel<N>& n, const Visible& seen) {
  constexpr int L = Vec<N>::N, M = kTile<W>;
  for (int64_t key = seen.begin / M * M; key < seen.keys; key += M) {
    const int64_t first = seen.first_vector(key, L) * L, rows = seen.keys - key;
    const int64_t queries = smaller(n.queries, key + M - seen.behind) - first;
    const N *const x = a + key * W * L + first, *const y = b + first * ld;
    N* const to = out + key * ld;
    int64_t c = 0;
    for (; c + (W - 1) * L < columns; c += W * L)
      outer_columns<W, M>(to + c, x, W * L, y + c, ld, queries, rows);
    if constexpr (W == 4) {
      for (; c + L < columns; c += 2 * L)
        outer_columns<2, M>(to + c, x, W * L, y + c, ld, queries, rows);
    }
    for (; c < columns; c += L) outer_columns<1, M>(to + c, x, W * L, y + c, ld, queries, rows);
  }
}

template <bool kModified, int W, class N>
__attribute__((noinline)) void differentiate(const Work<N>& w, const Panel<N>& n,
                                             const Visible& seen, int64_t first_key) {
  constexpr int M = kTile<W>, L = Vec<N>::N;
  for (int64_t key = seen.begin / M * M; key < seen.keys; key += M) {
    from_vector<W>(seen.first_vector(key, L),
                   [&](auto j0) { gradient_tile<kModified, j0(), W>(w, n, seen, key); });
  }
  if constexpr (kModified) {
    if (w.bias_gradient.to != nullptr) {
      w.bias_gradient.template add<W>(w.ds, n.first, n.queries, seen, first_key);
      if (w.bias_gradient.alone) return;
    }
    if (w.derivative != nullptr) {
      const int64_t first = seen.begin / M * M * W * L;
      multiply_by(w.ds + first, w.derivative + first, seen.keys * W * L - first);
    }
  }
  accumulate<W>(n.dqt, w.k, w.D, w.ds, seen, w.D);
  outer<W>(w.dv + first_key * w.Dvl, w.p, n.g, w.Dvl, w.Dv, n, seen);
  outer<W>(w.dk + first_key * w.Dl, w.ds, n.q, w.Dl, w.D, n, seen);
}

}  // namespace
}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
