// Attention, backward (Dao et al. 2022, equation 4), queries on the vector lanes (tile-inl.h).
//
// Query blocks outside, key blocks inside. For a panel and a key block: the weights P again from
// the log-sum-exp, then dS = P (dO V^T - delta), dV += P^T dO, dK += dS^T Q, dQ += dS K. dQ^T stays
// with its panel; dK and dV are added to in a fixed order, so the bits depend on the shapes alone.
#include "ops/attention/cpu/gradient-inl.h"
#include "ops/attention/cpu/half/choose-inl.h"
#include "ops/attention/cpu/kernel.h"
#include "ops/attention/cpu/pack-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

// delta and lse of the panel's queries. A row without keys has no gradient: its lse makes P vanish.
template <class N, class S>
void begin_rows(const AttentionGradParams& a, const Panel<N>& n, const AttentionSequence& s,
                int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  const int64_t at_lse = attention_lse(f, s, h, n.first);
  const N* const lse = static_cast<const N*>(f.lse) + at_lse;
  const N* const grad_lse = static_cast<const N*>(a.grad_lse);
  const N inf = SoftmaxState<V>::kInf;
  for (int64_t r = 0; r < n.width * V::N; ++r) {
    const bool empty = r >= n.queries || lse[r] == -inf;
    n.lse[r] = empty ? inf : lse[r] * static_cast<N>(kLog2e);
    n.delta[r] = 0;
    if (empty) continue;
    const S* const o = at_query<S>(f.out, s, n.first + r, h);
    const S* const g = at_query<S>(a.grad_out, s, n.first + r, h);
    V sum = zero<V>();
    for (int64_t d = 0; d < f.Dv; d += V::N) {
      const int width = static_cast<int>(smaller<int64_t>(V::N, f.Dv - d));
      sum = muladd(load<V>(o + d, width), load<V>(g + d, width), sum);
    }
    n.delta[r] = reduce_add(sum) - (grad_lse == nullptr ? N(0) : grad_lse[at_lse + r]);
  }
}

template <class N, class S>
void begin_panel(const AttentionGradParams& a, const Work<N>& w, const Panel<N>& n,
                 const AttentionSequence& s, int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  const int64_t lanes = n.width * V::N;
  const S* const q = at_query<S>(f.q, s, n.first, h);
  const S* const g = at_query<S>(a.grad_out, s, n.first, h);
  for (int j = 0; j < n.width; ++j) {
    const int64_t r = j * V::N, rows = n.queries - r;
    pack_transposed<N>(n.qt + r, lanes, q + r * f.q.row, f.q.row, rows, f.D, w.scale.sign);
    pack_transposed<N>(n.gt + r, lanes, g + r * a.grad_out.row, a.grad_out.row, rows, f.Dv, N(1));
  }
  pack(n.q, attention_padded(f.D), q, f.q.row, n.queries, f.D);
  pack(n.g, attention_padded(f.Dv), g, a.grad_out.row, n.queries, f.Dv);
  __builtin_memset(n.dqt, 0, static_cast<size_t>(f.D * lanes) * sizeof(N));
  begin_rows<N, S>(a, n, s, h);
}

template <class N, class S>
void end_panel(const AttentionGradParams& a, const Panel<N>& n, const AttentionSequence& s,
               int64_t h) {
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  for (int j = 0; j < n.width; ++j) {
    const int64_t r = j * V::N, rows = n.queries - r;
    if (rows <= 0) break;
    unpack_transposed<N>(at_query<S>(a.grad_q, s, n.first + r, h), a.grad_q.row, n.dqt + r,
                         n.width * V::N, rows, f.D, V(static_cast<N>(f.scores.scale)));
  }
}

template <bool kModified, class N, class S>
void run_block(const AttentionGradParams& a, Work<N>& w, const AttentionSequence& s, int64_t h,
               int64_t block) {
  const AttentionParams& f = a.forward;
  const int64_t begin = block * f.block_rows, end = smaller(s.T, begin + f.block_rows);
  const int64_t g = h / (f.H / f.G);
  w.count = cut_into_panels<N>(w.panels, begin, end - begin);
  for (int64_t i = 0; i < w.count; ++i) begin_panel<N, S>(a, w, w.panels[i], s, h);
  if constexpr (kModified) {
    w.modifiers = modifiers(f, s.b, h, w.scale);
    w.modifiers.bias = w.bias;
    w.modifiers.keep = w.keep;
    if (a.grad_bias != nullptr && a.bias_apart == w.bias_gradient.alone) {
      w.bias_gradient.to =
          static_cast<N*>(a.grad_bias) + s.b * a.grad_bias_batch + h * a.grad_bias_head;
    }
  }
  for_key_blocks(s, begin, end, [&](int64_t key, int64_t rows) {
    pack_keys<S>(w.k, f, f.k, s, g, key, rows, f.D);
    pack_keys<S>(w.v, f, f.v, s, g, key, rows, f.Dv);
    for (int64_t i = 0; i < w.count; ++i) {
      const Panel<N>& n = w.panels[i];
      const Visible seen = visible(s, n.first, n.queries, key);
      if (seen.begin >= seen.keys) continue;
      if constexpr (kModified) {
        if (!pack_modifiers<S>(w.modifiers, f, s, h, n.first, n.queries, end - n.first - n.queries,
                               n.width, key, seen)) {
          continue;
        }
      }
      visit_width(n.width, [&](auto width) { differentiate<kModified, width()>(w, n, seen, key); });
    }
  });
  if (w.bias_gradient.alone) return;
  for (int64_t i = 0; i < w.count; ++i) end_panel<N, S>(a, w.panels[i], s, h);
}

template <class N, class S>
void store_pair(const AttentionGradParams& a, int64_t bg, const N* dk, const N* dv) {
  const AttentionParams& f = a.forward;
  const AttentionSequence s = attention_sequence(f, bg / f.G);
  const int64_t g = bg % f.G;
  store_keys<N, S>(f, a.grad_k, s, g, dk, attention_padded(f.D), f.D,
                   static_cast<N>(f.scores.scale));
  store_keys<N, S>(f, a.grad_v, s, g, dv, attention_padded(f.Dv), f.Dv, N(1));
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
  if (f.scores.bias_kind != AttentionBias::none) w.bias = s.take<N>(keys * lanes);
  if (f.scores.dropout > 0) w.keep = s.take<N>(keys * lanes);
  if (f.scores.softcap > 0) w.derivative = s.take<N>(keys * lanes);
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

template <class N>
Work<N> allocate(const AttentionGradParams& a) {
  const AttentionParams& f = a.forward;
  Scratch scratch;
  Work<N> w{};
  w.D = f.D;
  w.Dv = f.Dv;
  w.Dl = attention_padded(f.D);
  w.Dvl = attention_padded(f.Dv);
  w.scale = Scale<N>(f.scores.scale);
  lay_out(scratch, w, a);
  scratch.allocate();
  lay_out(scratch, w, a);
  w.bias_gradient.row = a.grad_bias_row;
  w.bias_gradient.key = a.grad_bias_key;
  return w;
}

// The blocks of a chunk, by number within those of all heads: first, first + step, ..., where each
// head has `blocks` of them from `block` on; and the keys that they see.
struct Chunk {
  int64_t first, step, block, blocks, key, keys;
};

// Blocks that see all keys before them cost the more the later they are: each chunk takes every
// so-manyth. In a window a chunk's blocks are neighbours, which see few keys.
SUFFUSE_INLINE Chunk chunk_at(const AttentionGradParams& a, const AttentionSequence& s,
                              int64_t chunk) {
  const int64_t rows = a.forward.block_rows, blocks = (s.T + rows - 1) / rows;
  if (s.left >= s.S || a.chunks > blocks) return {chunk, a.chunks, 0, blocks, 0, s.S};
  const int64_t first = blocks * chunk / a.chunks, end = blocks * (chunk + 1) / a.chunks;
  const int64_t key = smaller(s.S, s.first_key(first * rows));
  return {0, 1, first, end - first, key, s.end_key(smaller(s.T, end * rows) - 1) - key};
}

// Zeros for the chunk to add to. The first chunk is where the others meet, so all of it.
template <class N>
SUFFUSE_INLINE void clear_keys(const Work<N>& w, const AttentionParams& f, Chunk c) {
  if (c.first == 0 && c.block == 0) c.key = 0, c.keys = f.S;
  const auto clear = [&](N* rows, int64_t ld) {
    __builtin_memset(rows + c.key * ld, 0,
                     static_cast<size_t>(larger<int64_t>(0, c.keys) * ld) * sizeof(N));
  };
  clear(w.dk, w.Dl);
  clear(w.dv, w.Dvl);
}

template <bool kModified, class S>
void run_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  const AttentionParams& f = a.forward;
  const int64_t size = workspace_size<N>(f), heads = f.H / f.G;
  Work<N> w = allocate<N>(a);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t bg = unit / a.chunks, chunk = unit % a.chunks;
    if (a.chunks > 1) {
      w.dk = static_cast<N*>(a.workspace) + unit * size;
      w.dv = w.dk + f.S * w.Dl;
    }
    const AttentionSequence s = attention_sequence(f, bg / f.G);
    const Chunk c = chunk_at(a, s, chunk);
    clear_keys(w, f, c);
    for (int64_t i = c.first; i < heads * c.blocks; i += c.step)
      run_block<kModified, N, S>(a, w, s, bg % f.G * heads + i / c.blocks, c.block + i % c.blocks);
    if (a.chunks == 1) store_pair<N, S>(a, bg, w.dk, w.dv);
  }
}

// grad_bias: S and dP once more.
template <class S>
void bias_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  Work<N> w = allocate<N>(a);
  w.bias_gradient.alone = true;
  for_bias_blocks(a, begin, end, [&](const AttentionSequence& s, int64_t h, int64_t block) {
    run_block<true, N, S>(a, w, s, h, block);
  });
}

// Adds the chunks in their order into the first one and stores it.
template <class S>
void sum_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  using V = Vec<N>;
  const AttentionParams& f = a.forward;
  const int64_t size = workspace_size<N>(f), Dl = attention_padded(f.D),
                Dvl = attention_padded(f.Dv);
  for (int64_t bg = begin; bg < end; ++bg) {
    const AttentionSequence s = attention_sequence(f, bg / f.G);
    N* const total = static_cast<N*>(a.workspace) + bg * a.chunks * size;
    for (int64_t chunk = 1; chunk < a.chunks; ++chunk) {
      const Chunk c = chunk_at(a, s, chunk);
      const auto add = [&](N* to, int64_t ld) {
        for (int64_t i = c.key * ld; i < (c.key + c.keys) * ld; i += V::N)
          store(to + i, load<V>(to + i) + load<V>(to + chunk * size + i));
      };
      add(total, Dl);
      add(total + f.S * Dl, Dvl);
    }
    store_pair<N, S>(a, bg, total, total + f.S * Dl);
  }
}

}  // namespace
}  // namespace attention

void attention_bwd_range(const AttentionGradParams& p, int64_t begin, int64_t end) {
  if (attention::backward_in_half(p, begin, end)) return;
  const FlushSubnormals flush;
  visit_dtype(p.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (attention::is_modified(p.forward)) return attention::run_range<true, S>(p, begin, end);
    attention::run_range<false, S>(p, begin, end);
  });
}

void attention_bwd_bias_range(const AttentionGradParams& p, int64_t begin, int64_t end) {
  if (attention::bias_in_half(p, begin, end)) return;
  const FlushSubnormals flush;
  visit_dtype(p.forward.dtype, [&](auto tag) {
    attention::bias_range<typename decltype(tag)::type>(p, begin, end);
  });
}

void attention_bwd_sum_range(const AttentionGradParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  visit_dtype(p.forward.dtype,
              [&](auto tag) { attention::sum_range<typename decltype(tag)::type>(p, begin, end); });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
