// Attention of a few queries over many keys, as in generation with a cache: bound by the reading of
// keys and values.
//
// Keys outside, kv heads inside: a cache [S][G][D] is read in memory order. While the scores of a
// block are formed its values are fetched, and during the values the next keys.
#include "ops/attention/cpu/decode.h"

#include "ops/attention/cpu/decode-inl.h"
#include "ops/attention/cpu/pack-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

template <class N, class S, int R>
struct DecodeWork {
  DecodeRows<N, R>* rows;  // [G][sets]
  const S **k, **v;        // [chunk]: the rows of keys and values, head 0
  int64_t sets, ldq, ldo;
  DecodeScores<N> scores;
};

template <class N, class S, int R>
void lay_out(Scratch& s, DecodeWork<N, S, R>& w, const AttentionDecodeParams& p) {
  const AttentionParams& a = p.forward;
  constexpr int64_t L = Vec<N>::N;
  const int64_t count = a.T * (a.H / a.G);
  w.sets = (count + R - 1) / R;
  w.ldq = attention_padded(a.D);
  w.ldo = attention_padded(a.Dv);
  w.rows = s.take<DecodeRows<N, R>>(a.G * w.sets);
  w.k = s.take<const S*>(p.chunk);
  w.v = s.take<const S*>(p.chunk);
  for (int64_t i = 0; i < a.G * w.sets; ++i) {
    N *const q = s.take<N>(R * w.ldq), *const out = s.take<N>(R * w.ldo),
             *const weights = s.take<N>(kDecodeBlock * R), *const slope = s.take<N>(L),
             *const place = s.take<N>(L);
    if (w.rows == nullptr) continue;
    DecodeRows<N, R>& r = w.rows[i];
    r.q = q, r.out = out, r.weights = weights, r.slope = slope, r.place = place;
  }
}

// Row n of a kv head is query n / (H / G) of its head n % (H / G).
template <class N, class S, int R>
void begin_row(const AttentionParams& a, const AttentionSequence& s, DecodeRows<N, R>& rows, int r,
               int64_t g, int64_t n) {
  using V = Vec<N>;
  constexpr int K = V::N / R;
  const int64_t heads = a.H / a.G, i = n / heads, h = g * heads + n % heads;
  const int64_t ldq = attention_padded(a.D);
  const bool real = i < s.T;
  N* const q = rows.q + r * ldq;
  const S* const from = static_cast<const S*>(a.q.data) + attention_query(a.q, s, i) + h * a.q.head;
  for (int64_t d = 0; d < ldq; d += V::N) {
    const int width = static_cast<int>(larger<int64_t>(0, smaller<int64_t>(V::N, a.D - d)));
    store(q + d, real ? load<V>(from + d, width) : zero<V>());
  }
  rows.top[r] = SoftmaxState<N>::kLowest;
  rows.sum[r] = 0;
  rows.first[r] = real ? s.first_key(i) : 0;
  rows.end[r] = real ? s.end_key(i) : 0;
  for (int lane = r * K; lane < (r + 1) * K; ++lane) {
    rows.place[lane] = static_cast<N>(i + s.shift - lane % K);
    rows.slope[lane] = 0;
    if (a.scores.alibi == nullptr || !real) continue;
    const N* const slopes = static_cast<const N*>(a.scores.alibi) + s.b * a.scores.alibi_batch;
    rows.slope[lane] = slopes[h] * static_cast<N>(kDecodeLog2e);
  }
}

template <class N, class S, int R>
void begin_rows(const AttentionParams& a, const AttentionSequence& s, DecodeWork<N, S, R>& w) {
  for (int64_t g = 0; g < a.G; ++g)
    for (int64_t set = 0; set < w.sets; ++set) {
      DecodeRows<N, R>& rows = w.rows[g * w.sets + set];
      for (int r = 0; r < R; ++r) begin_row<N, S, R>(a, s, rows, r, g, set * R + r);
      __builtin_memset(rows.out, 0, static_cast<size_t>(R * w.ldo) * sizeof(N));
    }
}

template <class S>
SUFFUSE_INLINE void fetch(const S* row, int64_t columns) {
  for (int64_t c = 0; c < columns; c += kCacheLine / static_cast<int64_t>(sizeof(S)))
    __builtin_prefetch(row + c, 0, 2);
}

// Scores of the block's keys [0, keys), which begin at `first` of the sequence.
template <class N, class S, int R>
void score_block(const AttentionParams& a, DecodeWork<N, S, R>& w, const S* const* k,
                 const S* const* v, int64_t first, int64_t keys) {
  constexpr int64_t L = Vec<N>::N, K = L / R;
  for (int64_t key = 0; key < keys; key += K) {
    const int64_t count = smaller(K, keys - key);
    const S* group[K];
    for (int64_t i = 0; i < K; ++i) group[i] = k[key + (i < count ? i : 0)];
    for (int64_t g = 0; g < a.G; ++g) {
      for (int64_t i = 0; i < count; ++i) fetch(v[key + i] + g * a.v.head, a.Dv);
      for (int64_t set = 0; set < w.sets; ++set) {
        DecodeRows<N, R>& rows = w.rows[g * w.sets + set];
        const Vec<N> x = decode_products<R>(rows.q, w.ldq, group, g * a.k.head, a.D);
        N* const to = rows.weights + key / K * L;
        store(to, decode_modify(rows, w.scores, x, first + key));
        bool all = count == K;
        for (int r = 0; r < R; ++r)
          all &= first + key >= rows.first[r] && first + key + K <= rows.end[r];
        if (!all) decode_hide(rows, to, first + key, count);
      }
    }
  }
}

template <class N, class S, int R>
void value_block(const AttentionParams& a, DecodeWork<N, S, R>& w, const S* const* v,
                 const S* const* next, int64_t keys, int64_t next_keys) {
  for (int64_t g = 0; g < a.G; ++g) {
    for (int64_t i = 0; i < next_keys; ++i) fetch(next[i] + g * a.k.head, a.D);
    for (int64_t set = 0; set < w.sets; ++set) {
      DecodeRows<N, R>& rows = w.rows[g * w.sets + set];
      N keep[R];
      decode_softmax(rows, keys, keep);
      decode_values(rows, keep, v, g * a.v.head, keys, a.Dv, w.ldo);
    }
  }
}

template <class N, class S, int R>
void store_partial(const AttentionDecodeParams& p, const DecodeWork<N, S, R>& w, int64_t unit) {
  using V = Vec<N>;
  const AttentionParams& a = p.forward;
  const int64_t heads = a.H / a.G, ld = attention_decode_row(a.Dv);
  N* const to = static_cast<N*>(p.workspace) + unit * a.H * a.T * ld;
  for (int64_t g = 0; g < a.G; ++g)
    for (int64_t n = 0; n < a.T * heads; ++n) {
      const DecodeRows<N, R>& rows = w.rows[g * w.sets + n / R];
      const int64_t r = n % R, i = n / heads, h = g * heads + n % heads;
      N* const row = to + (h * a.T + i) * ld;
      for (int64_t d = 0; d < w.ldo; d += V::N) store(row + d, load<V>(rows.out + r * w.ldo + d));
      row[w.ldo] = rows.top[r];
      row[w.ldo + 1] = rows.sum[r];
    }
}

template <class N, class S, int R>
void run_unit(const AttentionDecodeParams& p, DecodeWork<N, S, R>& w, int64_t unit) {
  const AttentionParams& a = p.forward;
  const AttentionSequence s = attention_sequence(a, unit / p.chunks);
  begin_rows<N, S, R>(a, s, w);
  const int64_t chunk = unit % p.chunks * p.chunk;
  const int64_t first = larger(chunk, s.T > 0 ? s.first_key(0) : 0);
  const int64_t end = smaller(chunk + p.chunk, s.T > 0 ? s.end_key(s.T - 1) : 0);
  const int64_t count = larger<int64_t>(0, end - first);
  for (int64_t i = 0; i < count; ++i) {
    w.k[i] = static_cast<const S*>(a.k.data) + attention_key(a, a.k, s, first + i);
    w.v[i] = static_cast<const S*>(a.v.data) + attention_key(a, a.v, s, first + i);
  }
  for (int64_t at = 0; at < count; at += kDecodeBlock) {
    const int64_t keys = smaller<int64_t>(kDecodeBlock, count - at);
    const int64_t next = smaller<int64_t>(kDecodeBlock, count - at - keys);
    score_block<N, S, R>(a, w, w.k + at, w.v + at, first + at, keys);
    value_block<N, S, R>(a, w, w.v + at, w.k + at + keys, keys, next);
  }
  store_partial<N, S, R>(p, w, unit);
}

template <class S, int R>
void run_range(const AttentionDecodeParams& p, int64_t begin, int64_t end) {
  using N = Accumulator<S>;
  Scratch scratch;
  DecodeWork<N, S, R> w{};
  lay_out(scratch, w, p);
  scratch.allocate();
  lay_out(scratch, w, p);
  const AttentionScores& a = p.forward.scores;
  w.scores.alibi = a.alibi != nullptr;
  w.scores.cap = static_cast<N>(a.softcap * kDecodeLog2e);
  w.scores.scale = static_cast<N>(a.softcap != 0 ? a.scale / a.softcap : a.scale * kDecodeLog2e);
  for (int64_t unit = begin; unit < end; ++unit) run_unit<N, S, R>(p, w, unit);
}

template <class S>
void merge_row(const AttentionDecodeParams& p, int64_t b, int64_t h, int64_t i) {
  using N = Accumulator<S>;
  using V = Vec<N>;
  const AttentionParams& a = p.forward;
  const AttentionSequence s = attention_sequence(a, b);
  if (i >= s.T) return;
  const int64_t ld = attention_decode_row(a.Dv), at_top = attention_padded(a.Dv);
  SoftmaxState<N> state;
  if (a.scores.sinks != nullptr) {
    const N sink = static_cast<const N*>(a.scores.sinks)[h];
    if (sink > -SoftmaxState<N>::kInf) {
      state.top = sink * static_cast<N>(kDecodeLog2e);
      state.sum = 1;
    }
  }
  // The first partial result is the accumulator.
  N* const total = static_cast<N*>(p.workspace) + ((b * p.chunks * a.H + h) * a.T + i) * ld;
  for (int64_t c = 0; c < p.chunks; ++c) {
    const N* const part = total + c * a.H * a.T * ld;
    N keep, take;
    state.merge({part[at_top], part[at_top + 1]}, keep, take);
    for (int64_t d = 0; d < a.Dv; d += V::N) {
      const V x = load<V>(part + d) * V(take);
      store(total + d, c == 0 ? x : muladd(load<V>(total + d), V(keep), x));
    }
  }
  S* const out = static_cast<S*>(a.out.data) + attention_query(a.out, s, i) + h * a.out.head;
  const N inverse = state.inverse();
  for (int64_t d = 0; d < a.Dv; d += V::N) {
    const V x = inverse == 0 ? zero<V>() : load<V>(total + d) * V(inverse);
    store(out + d, x, static_cast<int>(smaller<int64_t>(V::N, a.Dv - d)));
  }
  static_cast<N*>(a.lse)[attention_lse(a, s, h, i)] = state.lse();
}

}  // namespace
}  // namespace attention

void attention_decode_range(const AttentionDecodeParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const bool one = p.forward.T * (p.forward.H / p.forward.G) == 1;
  visit_dtype(p.forward.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    constexpr int R = Vec<attention::Accumulator<S>>::N < 4 ? 2 : 4;
    if (one) {
      attention::run_range<S, 1>(p, begin, end);
    } else {
      attention::run_range<S, R>(p, begin, end);
    }
  });
}

void attention_decode_merge_range(const AttentionDecodeParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const AttentionParams& a = p.forward;
  visit_dtype(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    for (int64_t row = begin; row < end; ++row)
      attention::merge_row<S>(p, row / (a.H * a.T), row / a.T % a.H, row % a.T);
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
