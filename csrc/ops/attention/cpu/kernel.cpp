// Attention, forward: tiled with an online softmax, queries on the vector lanes (tile-inl.h).
//
// The reference of the softmax is raised lazily: only when a score exceeds it by more than 2^8 is
// everything that was formed with the old one scaled. Weights stay below 2^8, which costs no
// accuracy, and can be formed tile by tile without waiting for the largest score of the block.
#include "ops/attention/cpu/kernel.h"

#include "ops/attention/cpu/half/choose-inl.h"
#include "ops/attention/cpu/modifiers-inl.h"
#include "ops/attention/cpu/pack-inl.h"
#include "ops/attention/cpu/tile-inl.h"
#include "ops/attention/cpu/unit-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

constexpr int kLazy = 8;

template <class N>
struct Panel {
  N *qt, *ot;    // [D][query], [Dv][query]: Q^T, O^T before its division
  N *top, *sum;  // [query]: the softmax states
  int64_t first, queries;
  int width;  // in vectors
};

template <class N>
struct Work {
  Panel<N>* panels;
  int64_t count;
  N* weights;      // [key][query] of one panel and key block
  N *k, *v;        // [key][D], [key][Dv]
  N *bias, *keep;  // see Modifiers
  int64_t D, Dv;
  Scale<N> scale;
  Modifiers<N> modifiers;
};

// Rare: the reference moves up to the tile's largest scores; all that was formed with the old one
// is scaled.
template <int W, class N>
__attribute__((noinline, cold)) void raise(const Work<N>& w, const Panel<N>& p,
                                           const Vec<N> (&largest)[W], int64_t keys_done) {
  using V = Vec<N>;
  for (int j = 0; j < W; ++j) {
    SoftmaxState<V> state{load<V>(p.top + j * V::N), load<V>(p.sum + j * V::N)};
    const V keep = state.raise(largest[j]);
    store(p.top + j * V::N, state.top);
    store(p.sum + j * V::N, state.sum);
    for (int64_t d = 0; d < w.Dv; ++d) {
      N* const x = p.ot + (d * W + j) * V::N;
      store(x, load<V>(x) * keep);
    }
    for (int64_t key = 0; key < keys_done; ++key) {
      N* const x = w.weights + (key * W + j) * V::N;
      store(x, load<V>(x) * keep);
    }
  }
}

// Weights 2^(score - top) of the keys [key, key + M) for the vectors from J0 on.
template <bool kModified, int J0, int W, class N>
SUFFUSE_INLINE void weights_of_tile(const Work<N>& w, const Panel<N>& p, const Visible& seen,
                                    int64_t key) {
  using V = Vec<N>;
  constexpr int M = kTile<W>;
  V score[M][W];
  clear(score);
  multiply<J0>(score, w.k + key * w.D, w.D, 1, p.qt, W * V::N, w.D);
  N* const weights = w.weights + key * W * V::N;
  if constexpr (kModified) {
    to_scores<J0>(score, w.modifiers, weights, static_cast<N*>(nullptr), key);
  }
  mask<J0>(score, seen, key);

  const V factor(kModified ? N(1) : w.scale.factor);
  V largest[W];
  Mask<V> over = first<V>(0);
#pragma GCC unroll 4
  for (int j = 0; j < W; ++j) {
    largest[j] = V(SoftmaxState<V>::kLowest);
    if (j < J0) continue;
    largest[j] = score[0][j];
#pragma GCC unroll 16
    for (int i = 1; i < M; ++i) largest[j] = max(largest[j], score[i][j]);
    largest[j] *= factor;
    over = over | (largest[j] - V(kLazy) > load<V>(p.top + j * V::N));
  }
  if (__builtin_expect(any(over), 0)) raise<W>(w, p, largest, key);

#pragma GCC unroll 4
  for (int j = J0; j < W; ++j) {
    const V reference = -load<V>(p.top + j * V::N);
    V sum = load<V>(p.sum + j * V::N);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const V weight = exp2_fast(muladd(score[i][j], factor, reference));
      sum += weight;
      store(weights + (i * W + j) * V::N, weight);
    }
    store(p.sum + j * V::N, sum);
  }
  if constexpr (kModified) {
    if (w.modifiers.keep != nullptr) {
      multiply_by(weights, w.modifiers.keep + key * W * V::N, M * W * V::N);
    }
  }
}

template <bool kModified, int W, class N>
__attribute__((noinline)) void attend(const Work<N>& w, const Panel<N>& p, const Visible& seen) {
  constexpr int M = kTile<W>, L = Vec<N>::N;
  for (int64_t key = seen.begin / M * M; key < seen.keys; key += M) {
    from_vector<W>(seen.first_vector(key, L),
                   [&](auto j0) { weights_of_tile<kModified, j0(), W>(w, p, seen, key); });
  }
  accumulate<W>(p.ot, w.v, w.Dv, w.weights, seen, w.Dv);
}

// A sink is a score that was there before the first key's.
template <class V, class N = typename ElementOf<V>::type>
SUFFUSE_INLINE SoftmaxState<V> first_state(const AttentionParams& a, int64_t h) {
  SoftmaxState<V> state;
  const N* const sinks = static_cast<const N*>(a.scores.sinks);
  if (sinks == nullptr || sinks[h] == -SoftmaxState<V>::kInf) return state;
  state.top = V(sinks[h] * static_cast<N>(kLog2e));
  state.sum = V(1);
  return state;
}

template <class N, class S>
void begin_panel(const AttentionParams& a, const Work<N>& w, const Panel<N>& p,
                 const AttentionSequence& s, int64_t h) {
  using V = Vec<N>;
  const int64_t lanes = p.width * V::N;
  for (int j = 0; j < p.width; ++j) {
    pack_transposed<N>(p.qt + j * V::N, lanes, at_query<S>(a.q, s, p.first + j * V::N, h), a.q.row,
                       p.queries - j * V::N, a.D, w.scale.sign);
    const SoftmaxState<V> state = first_state<V>(a, h);
    store(p.top + j * V::N, state.top);
    store(p.sum + j * V::N, state.sum);
  }
  __builtin_memset(p.ot, 0, static_cast<size_t>(a.Dv * lanes) * sizeof(N));
}

template <class N, class S>
void end_panel(const AttentionParams& a, const Panel<N>& p, const AttentionSequence& s, int64_t h) {
  using V = Vec<N>;
  N* const lse = static_cast<N*>(a.lse) + attention_lse(a, s, h, p.first);
  for (int j = 0; j < p.width; ++j) {
    const int64_t queries = smaller<int64_t>(V::N, p.queries - j * V::N);
    if (queries <= 0) break;
    const SoftmaxState<V> state{load<V>(p.top + j * V::N), load<V>(p.sum + j * V::N)};
    store(lse + j * V::N, state.lse(), static_cast<int>(queries));
    unpack_transposed<N>(at_query<S>(a.out, s, p.first + j * V::N, h), a.out.row, p.ot + j * V::N,
                         p.width * V::N, queries, a.Dv, state.inverse());
  }
}

template <bool kModified, class N, class S>
void run_block(const AttentionParams& a, Work<N>& w, const AttentionSequence& s, int64_t h,
               int64_t block) {
  const int64_t begin = block * a.block_rows, end = smaller(s.T, begin + a.block_rows);
  const int64_t g = h / (a.H / a.G);
  w.count = cut_into_panels<N>(w.panels, begin, end - begin);
  for (int64_t i = 0; i < w.count; ++i) begin_panel<N, S>(a, w, w.panels[i], s, h);
  if constexpr (kModified) {
    w.modifiers = modifiers(a, s.b, h, w.scale);
    w.modifiers.bias = w.bias;
    w.modifiers.keep = w.keep;
  }
  for_key_blocks(s, begin, end, [&](int64_t key, int64_t rows) {
    pack_keys<S>(w.k, a, a.k, s, g, key, rows, a.D);
    pack_keys<S>(w.v, a, a.v, s, g, key, rows, a.Dv);
    for (int64_t i = 0; i < w.count; ++i) {
      const Panel<N>& p = w.panels[i];
      const Visible seen = visible(s, p.first, p.queries, key);
      if (seen.begin >= seen.keys) continue;
      if constexpr (kModified) {
        if (!pack_modifiers<S>(w.modifiers, a, s, h, p.first, p.queries, end - p.first - p.queries,
                               p.width, key, seen)) {
          continue;
        }
      }
      visit_width(p.width, [&](auto width) { attend<kModified, width()>(w, p, seen); });
    }
  });
  for (int64_t i = 0; i < w.count; ++i) end_panel<N, S>(a, w.panels[i], s, h);
}

template <class N>
void lay_out(Scratch& s, Work<N>& w, const AttentionParams& a) {
  constexpr int64_t L = Vec<N>::N, lanes = kWidest * L;
  const int64_t rows = smaller(a.block_rows, a.T), keys = smaller<int64_t>(kKeys, a.S) + kSlack;
  const int64_t most = rows / lanes + 1;
  w.panels = s.take<Panel<N>>(most);
  w.weights = s.take<N>(keys * lanes);
  w.k = s.take<N>(keys * a.D + kSlack);
  w.v = s.take<N>(keys * a.Dv + kSlack);
  if (a.scores.bias_kind != AttentionBias::none) w.bias = s.take<N>(keys * lanes);
  if (a.scores.dropout > 0) w.keep = s.take<N>(keys * lanes);
  for (int64_t i = 0; i < most; ++i) {
    N* const qt = s.take<N>(a.D * lanes);
    N* const ot = s.take<N>((a.Dv + kSlack) * lanes);
    N* const top = s.take<N>(lanes);
    N* const sum = s.take<N>(lanes);
    if (w.panels != nullptr) w.panels[i] = {qt, ot, top, sum, 0, 0, 0};
  }
}

template <bool kModified, class S>
void run_range(const AttentionParams& a, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  Scratch scratch;
  Work<N> w{};
  w.D = a.D;
  w.Dv = a.Dv;
  w.scale = Scale<N>(a.scores.scale);
  lay_out(scratch, w, a);
  scratch.allocate();
  lay_out(scratch, w, a);
  for (int64_t unit = begin; unit < end; ++unit) {
    const Unit u = unit_at(a, unit);
    run_block<kModified, N, S>(a, w, attention_sequence(a, u.b), u.h, u.block);
  }
}

}  // namespace
}  // namespace attention

void attention_fwd_range(const AttentionParams& p, int64_t begin, int64_t end) {
  if (attention::forward_in_half(p, begin, end)) return;
  const FlushSubnormals flush;
  visit_dtype(p.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (attention::is_modified(p)) return attention::run_range<true, S>(p, begin, end);
    attention::run_range<false, S>(p, begin, end);
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
