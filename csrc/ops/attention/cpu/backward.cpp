// Attention, backward (Dao et al. 2022, equation 4), queries on the vector lanes (tile-inl.h).
//
// Query blocks outside, key blocks inside. For a panel and a key block: the weights P again from
// the log-sum-exp, then dS = P (dO V^T - delta), dV += P^T dO, dK += dS^T Q, dQ += dS K. dQ^T stays
// with its panel; dK and dV are added to in a fixed order, so the bits depend on the shapes alone.
#include "ops/attention/cpu/kernel.h"
#include "ops/attention/cpu/pack-inl.h"
#include "ops/attention/cpu/tile-inl.h"
#include "simd/flush_subnormals.h"

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
};

// P and dS of the keys [key, key + M) for the vectors from J0 on.
template <int J0, int W, class N>
SUFFUSE_INLINE void gradient_tile(const Work<N>& w, const Panel<N>& n, const Visible& seen,
                                  int64_t key) {
  using V = Vec<N>;
  constexpr int M = kTile<W>, L = V::N;
  N *const p = w.p + key * W * L, *const ds = w.ds + key * W * L;
  const V factor(w.scale.factor);
  V x[M][W];
  clear(x);
  multiply<J0>(x, w.k + key * w.D, w.D, 1, n.qt, W * L, w.D);
  mask<J0>(x, seen.offset + key, seen.keys - key);
#pragma GCC unroll 4
  for (int j = J0; j < W; ++j) {
    const V lse = -load<V>(n.lse + j * L);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) store(p + (i * W + j) * L, exp2_fast(muladd(x[i][j], factor, lse)));
  }
  clear(x);
  multiply<J0>(x, w.v + key * w.Dv, w.Dv, 1, n.gt, W * L, w.Dv);
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
  for (int64_t key = 0; key < seen.keys; key += M) {
    const int64_t first = seen.first_vector(key, L) * L;
    const int64_t queries = n.queries - first, rows = seen.keys - key;
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

template <int W, class N>
__attribute__((noinline)) void differentiate(const Work<N>& w, const Panel<N>& n,
                                             const Visible& seen, int64_t first_key) {
  constexpr int M = kTile<W>, L = Vec<N>::N;
  for (int64_t key = 0; key < seen.keys; key += M) {
    from_vector<W>(seen.first_vector(key, L),
                   [&](auto j0) { gradient_tile<j0(), W>(w, n, seen, key); });
  }
  accumulate<W>(n.dqt, w.k, w.D, w.ds, seen, w.D);
  outer<W>(w.dv + first_key * w.Dvl, w.p, n.g, w.Dvl, w.Dv, n, seen);
  outer<W>(w.dk + first_key * w.Dl, w.ds, n.q, w.Dl, w.D, n, seen);
}

// delta and lse of the panel's queries. A row without keys has no gradient: its lse makes P vanish.
template <class N, class S>
void begin_rows(const AttentionGradParams& a, const Panel<N>& n, int64_t b, int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  const int64_t at_lse = (b * f.H + h) * f.T + n.first;
  const N* const lse = static_cast<const N*>(f.lse) + at_lse;
  const N* const grad_lse = static_cast<const N*>(a.grad_lse);
  const N inf = SoftmaxState<V>::kInf;
  for (int64_t r = 0; r < n.width * V::N; ++r) {
    const bool empty = r >= n.queries || lse[r] == -inf;
    n.lse[r] = empty ? inf : lse[r] * static_cast<N>(kLog2e);
    n.delta[r] = 0;
    if (empty) continue;
    const S *const o = at<S>(f.out, b, n.first + r, h), *const g =
                                                            at<S>(a.grad_out, b, n.first + r, h);
    V sum = zero<V>();
    for (int64_t d = 0; d < f.Dv; d += V::N) {
      const int width = static_cast<int>(smaller<int64_t>(V::N, f.Dv - d));
      sum = muladd(load<V>(o + d, width), load<V>(g + d, width), sum);
    }
    n.delta[r] = reduce_add(sum) - (grad_lse == nullptr ? N(0) : grad_lse[at_lse + r]);
  }
}

template <class N, class S>
void begin_panel(const AttentionGradParams& a, const Work<N>& w, const Panel<N>& n, int64_t b,
                 int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  const int64_t lanes = n.width * V::N;
  const S *const q = at<S>(f.q, b, n.first, h), *const g = at<S>(a.grad_out, b, n.first, h);
  for (int j = 0; j < n.width; ++j) {
    const int64_t r = j * V::N, rows = n.queries - r;
    pack_transposed<N>(n.qt + r, lanes, q + r * f.q.row, f.q.row, rows, f.D, w.scale.sign);
    pack_transposed<N>(n.gt + r, lanes, g + r * a.grad_out.row, a.grad_out.row, rows, f.Dv, N(1));
  }
  pack(n.q, attention_padded(f.D), q, f.q.row, n.queries, f.D);
  pack(n.g, attention_padded(f.Dv), g, a.grad_out.row, n.queries, f.Dv);
  __builtin_memset(n.dqt, 0, static_cast<size_t>(f.D * lanes) * sizeof(N));
  begin_rows<N, S>(a, n, b, h);
}

template <class N, class S>
void end_panel(const AttentionGradParams& a, const Panel<N>& n, int64_t b, int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  for (int j = 0; j < n.width; ++j) {
    const int64_t r = j * V::N, rows = n.queries - r;
    if (rows <= 0) break;
    unpack_transposed<N>(at<S>(a.grad_q, b, n.first + r, h), a.grad_q.row, n.dqt + r,
                         n.width * V::N, rows, f.D, V(static_cast<N>(f.scale)));
  }
}

template <class N, class S>
void run_block(const AttentionGradParams& a, Work<N>& w, int64_t b, int64_t h, int64_t block) {
  const AttentionParams& f = a.forward;
  const int64_t begin = block * f.block_rows, end = smaller(f.T, begin + f.block_rows);
  const int64_t g = h / (f.H / f.G);
  w.count = cut_into_panels<N>(w.panels, begin, end - begin);
  for (int64_t i = 0; i < w.count; ++i) begin_panel<N, S>(a, w, w.panels[i], b, h);
  const int64_t keys = key_end(f, end - 1);
  for (int64_t key = 0; key < keys; key += kKeys) {
    const int64_t rows = smaller<int64_t>(kKeys, keys - key);
    pack_keys(w.k, at<S>(f.k, b, key, g), f.k.row, rows, f.D);
    pack_keys(w.v, at<S>(f.v, b, key, g), f.v.row, rows, f.Dv);
    for (int64_t i = 0; i < w.count; ++i) {
      const Panel<N>& n = w.panels[i];
      const Visible seen = visible(f, n.first, n.queries, key);
      if (seen.keys == 0) continue;
      visit_width(n.width, [&](auto width) { differentiate<width()>(w, n, seen, key); });
    }
  }
  for (int64_t i = 0; i < w.count; ++i) end_panel<N, S>(a, w.panels[i], b, h);
}

template <class N, class S>
void store_pair(const AttentionGradParams& a, int64_t bg, const N* dk, const N* dv) {
  const AttentionParams& f = a.forward;
  const int64_t b = bg / f.G, g = bg % f.G;
  store_rows<N, S>(a.grad_k, b, g, dk, attention_padded(f.D), f.S, f.D, static_cast<N>(f.scale));
  store_rows<N, S>(a.grad_v, b, g, dv, attention_padded(f.Dv), f.S, f.Dv, N(1));
}

template <class N>
int64_t workspace_size(const AttentionParams& f) {
  return f.S * (attention_padded(f.D) + attention_padded(f.Dv));
}

template <class N>
void lay_out(Scratch& s, Work<N>& w, const AttentionGradParams& a) {
  const AttentionParams& f = a.forward;
  constexpr int64_t L = Vec<N>::N, lanes = kWidest * L;
  const int64_t rows = smaller(f.block_rows, f.T), keys = smaller<int64_t>(kKeys, f.S) + kSlack;
  const int64_t most = rows / lanes + 1;
  w.panels = s.take<Panel<N>>(most);
  w.p = s.take<N>(keys * lanes);
  w.ds = s.take<N>(keys * lanes);
  w.k = s.take<N>(keys * f.D + kSlack);
  w.v = s.take<N>(keys * f.Dv + kSlack);
  if (a.chunks == 1) {
    w.dk = s.take<N>(workspace_size<N>(f));
    w.dv = w.dk + f.S * w.Dl;
  }
  for (int64_t i = 0; i < most; ++i) {
    N *const qt = s.take<N>(f.D * lanes), *const gt = s.take<N>(f.Dv * lanes),
             *const dqt = s.take<N>((f.D + kSlack) * lanes),
             *const q = s.take<N>(w.Dl * lanes + kSlack),
             *const g = s.take<N>(w.Dvl * lanes + kSlack), *const lse = s.take<N>(lanes),
             *const delta = s.take<N>(lanes);
    if (w.panels != nullptr) w.panels[i] = {qt, gt, dqt, q, g, lse, delta, 0, 0, 0};
  }
}

template <class S>
void run_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  const AttentionParams& f = a.forward;
  const int64_t size = workspace_size<N>(f), heads = f.H / f.G;
  Scratch scratch;
  Work<N> w{};
  w.D = f.D;
  w.Dv = f.Dv;
  w.Dl = attention_padded(f.D);
  w.Dvl = attention_padded(f.Dv);
  w.scale = Scale<N>(f.scale);
  lay_out(scratch, w, a);
  scratch.allocate();
  lay_out(scratch, w, a);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t bg = unit / a.chunks, chunk = unit % a.chunks;
    if (a.chunks > 1) {
      w.dk = static_cast<N*>(a.workspace) + unit * size;
      w.dv = w.dk + f.S * w.Dl;
    }
    __builtin_memset(w.dk, 0, static_cast<size_t>(size) * sizeof(N));
    for (int64_t i = chunk; i < heads * f.blocks; i += a.chunks)
      run_block<N, S>(a, w, bg / f.G, bg % f.G * heads + i / f.blocks, i % f.blocks);
    if (a.chunks == 1) store_pair<N, S>(a, bg, w.dk, w.dv);
  }
}

// Adds the chunks in their order into the first one and stores it.
template <class S>
void sum_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  using V = Vec<N>;
  const int64_t size = workspace_size<N>(a.forward);
  for (int64_t bg = begin; bg < end; ++bg) {
    N* const total = static_cast<N*>(a.workspace) + bg * a.chunks * size;
    for (int64_t chunk = 1; chunk < a.chunks; ++chunk)
      for (int64_t i = 0; i < size; i += V::N)
        store(total + i, load<V>(total + i) + load<V>(total + chunk * size + i));
    store_pair<N, S>(a, bg, total, total + a.forward.S * attention_padded(a.forward.D));
  }
}

}  // namespace
}  // namespace attention

void attention_bwd_range(const AttentionGradParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(p.forward.dtype,
              [&](auto tag) { attention::run_range<typename decltype(tag)::type>(p, begin, end); });
}

void attention_bwd_sum_range(const AttentionGradParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(p.forward.dtype,
              [&](auto tag) { attention::sum_range<typename decltype(tag)::type>(p, begin, end); });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
