// What comes between q k^T and the softmax beside the scale: softcap, ALiBi, bias or mask; and
// dropout of the weights. The kernels are compiled with and without it (kModified): whole tiles
// pass through memory here, in rolled loops, so that the plain kernels stay as they are.
#pragma once

#include "ops/attention/cpu/tile-inl.h"
#include "ops/attention/dropout.h"
#include "simd/bytes.h"
#include "simd/philox.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

SUFFUSE_INLINE bool is_modified(const AttentionParams& p) {
  const AttentionScores& s = p.scores;
  return s.softcap > 0 || s.bias_kind != AttentionBias::none || s.alibi != nullptr || s.dropout > 0;
}

// Of one (sequence, head), scores in base 2; then of one panel and key block.
template <class N>
struct Modifiers {
  N factor, cap, cap_argument, slope;  // |scale|; softcap and |scale| / softcap, 0: none; ALiBi
  int64_t position;                    // of lane 0, counted from the block's first key
  N *bias, *keep;     // [key][lane], or bias [key]; null: none. keep: 0 or 1 / (1 - dropout)
  bool same_for_all;  // bias does not depend on the query
  bool only_bias;     // and it does, and there is nothing but it
  // What the next panel will read of the bias: fetched while this one is computed, a few rows with
  // each tile, since all at once would wait for the memory.
  const char* next;
  int64_t next_row, next_rows, next_bytes;

  template <int W>
  SUFFUSE_INLINE void prefetch(int64_t key) const {
    constexpr int64_t rows = (W * Vec<N>::N * kTile<W> + kKeys - 1) / kKeys, line = 64;
    const int64_t first = key / kTile<W> * rows, end = smaller(next_rows, first + rows);
    for (int64_t r = first; r < end; ++r)
      for (int64_t at = 0; at < next_bytes + line; at += line)
        __builtin_prefetch(next + r * next_row + at, 0, 2);
  }
};

template <class N>
SUFFUSE_INLINE Modifiers<N> modifiers(const AttentionParams& p, int64_t b, int64_t h,
                                      const Scale<N>& scale) {
  const AttentionScores& s = p.scores;
  Modifiers<N> m{};
  m.factor = scale.factor;
  m.same_for_all = s.bias_row == 0;
  if (s.softcap > 0) {
    m.cap = static_cast<N>(s.softcap * kLog2e);
    m.cap_argument = static_cast<N>(__builtin_fabs(s.scale) / s.softcap);
  }
  if (s.alibi != nullptr) {
    m.slope = static_cast<const N*>(s.alibi)[b * s.alibi_batch + h] * static_cast<N>(kLog2e);
  }
  const bool bias = s.bias_kind != AttentionBias::none;
  m.only_bias = bias && !m.same_for_all && s.softcap == 0 && s.alibi == nullptr;
  return m;
}

// The lanes' numbers 0, 1, ...
template <class V>
SUFFUSE_INLINE V lane_numbers() {
  using N = typename ElementOf<V>::type;
  static constexpr N numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<V>(numbers);
}

// Products in `tile` (keys [key, key + M), the vectors from `first` on) become scores in base 2.
// `derivative` gets the softcap's, where there is one.
template <int W, class N>
__attribute__((noinline)) void modify(const Modifiers<N>& m, N* tile, N* derivative, int64_t key,
                                      int first) {
  using V = Vec<N>;
  constexpr int M = kTile<W>, L = V::N;
  for (int i = 0; i < M; ++i) {
    N* const row = tile + i * W * L;
    const V place = lane_numbers<V>() + V(static_cast<N>(m.position - key - i));
    for (int j = first; j < W; ++j) {
      V x = load<V>(row + j * L);
      if (m.cap > 0) {
        const V t = tanh_fast(x * V(m.cap_argument));
        x = t * V(m.cap);
        if (derivative != nullptr) store(derivative + (i * W + j) * L, V(1) - t * t);
      } else {
        x *= V(m.factor);
      }
      if (m.slope != 0) x -= V(m.slope) * abs(place + V(static_cast<N>(j * L)));
      if (m.bias != nullptr) {
        x += m.same_for_all ? V(m.bias[key + i]) : load<V>(m.bias + ((key + i) * W + j) * L);
      }
      store(row + j * L, x);
    }
  }
}

// Products become scores: in the registers where there is a bias of each query's own and nothing
// else, else by way of `tile`.
template <int J0, int M, int W, class N>
SUFFUSE_INLINE void to_scores(Vec<N> (&x)[M][W], const Modifiers<N>& m, N* tile, N* derivative,
                              int64_t key) {
  using V = Vec<N>;
  m.template prefetch<W>(key);
  if (m.only_bias) {
    const N* const bias = m.bias + key * W * V::N;
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = J0; j < W; ++j)
        x[i][j] = muladd(x[i][j], V(m.factor), load<V>(bias + (i * W + j) * V::N));
    return;
  }
  store_tile<J0>(tile, x);
  modify<W, N>(m, tile, derivative, key, J0);
  load_tile<J0>(x, tile);
}

// x *= y over whole vectors.
template <class N>
__attribute__((noinline)) void multiply_by(N* x, const N* y, int64_t count) {
  for (int64_t i = 0; i < count; i += Vec<N>::N)
    store(x + i, load<Vec<N>>(x + i) * load<Vec<N>>(y + i));
}

// Elements of the bias, n of them or V::N; E is uint8_t for a mask.
template <class V, class E>
SUFFUSE_INLINE V load_bias(const E* p) {
  using N = typename ElementOf<V>::type;
  if constexpr (std::is_same_v<E, uint8_t>) {
    return select(nonzero(load_bytes<V>(p)), zero<V>(), V(-SoftmaxState<V>::kInf));
  } else {
    return load<V>(p) * V(static_cast<N>(kLog2e));
  }
}
template <class V, class E>
SUFFUSE_INLINE V load_bias(const E* p, int64_t stride, int n) {
  E values[V::N];
  for (int i = 0; i < V::N; ++i) values[i] = i < n ? p[i * stride] : E{};
  return load_bias<V>(values);
}

// to[key][lane] of the bias of V::N queries, `rows` of them there, and as many keys, `keys` of them
// there. Returns whether the bias hides them all.
template <class N, class E>
SUFFUSE_INLINE bool pack_bias_tile(N* to, int64_t ld, const E* from, int64_t row, int64_t key,
                                   int64_t rows, int64_t keys, bool look) {
  using V = Vec<N>;
  const V hidden(-SoftmaxState<V>::kInf);
  V x[V::N];
  if (rows >= V::N && keys >= V::N && key == 1) {
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) x[r] = load_bias<V>(from + r * row);
  } else {
    for (int r = 0; r < V::N; ++r) {
      x[r] = hidden;
      if (r < rows) {
        const int n = static_cast<int>(smaller<int64_t>(V::N, keys));
        x[r] = select(first<V>(n), load_bias<V>(from + r * row, key, n), hidden);
      }
    }
  }
  transpose(x);
  Mask<V> shown = first<V>(0);
#pragma GCC unroll 16
  for (int r = 0; r < V::N; ++r) store(to + r * ld, x[r]);
  if (!look) return false;
  for (int r = 0; r < V::N; ++r) shown = shown | ~(load<V>(to + r * ld) == hidden);
  return !any(shown);
}

// The bias of a panel's queries and the block's keys in [seen.begin, seen.keys). Returns whether it
// hides them all.
template <class N, class E>
__attribute__((noinline)) bool pack_bias(const Modifiers<N>& m, const AttentionScores& s,
                                         const E* bias, int64_t queries, int width,
                                         const Visible& seen) {
  using V = Vec<N>;
  const int64_t lanes = width * V::N, begin = seen.begin / V::N * V::N;
  bool none = true;
  if (m.same_for_all) {
    for (int64_t key = begin; key < seen.keys; key += V::N) {
      const int n = static_cast<int>(smaller<int64_t>(V::N, seen.keys - key));
      const V x = load_bias<V>(bias + key * s.bias_key, s.bias_key, n);
      none = none && !any(first<V>(n) & ~(x == V(-SoftmaxState<V>::kInf)));
      store(m.bias + key, x);
    }
    return none;
  }
  for (int64_t q = 0; q < lanes; q += V::N) {
    for (int64_t key = begin; key < seen.keys; key += V::N) {
      none &= pack_bias_tile<N>(m.bias + key * lanes + q, lanes,
                                bias + q * s.bias_row + key * s.bias_key, s.bias_row, s.bias_key,
                                queries - q, seen.keys - key, none);
    }
  }
  return none;
}

// `keep` of a panel and key block: the factors of `width` vectors of queries from `query` on. Key
// blocks begin at multiples of four keys.
template <class N>
__attribute__((noinline)) void pack_keep(const Modifiers<N>& m, const AttentionScores& s,
                                         int64_t pair, int64_t query, int width, int64_t first_key,
                                         const Visible& seen) {
  using V = Vec<N>;
  constexpr int64_t lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  constexpr int perLane = 8 / sizeof(N);  // queries of a 64-bit lane
  const PhiloxKeys keys(static_cast<uint64_t>(*s.seed));
  const Int64 threshold(attention_dropout_threshold(s.dropout)), word(0xffffffff);
  N kept = static_cast<N>(1 / (1 - s.dropout));
  int64_t kept_bits = 0;
  __builtin_memcpy(&kept_bits, &kept, sizeof kept);
  const Int64 ones(kept_bits), lanes = Int64::load(lane);
  for (int64_t quad = seen.begin / 4; 4 * quad < seen.keys; ++quad) {
    for (int j = 0; j < width; ++j) {
      Int64 factors[4] = {Int64(0), Int64(0), Int64(0), Int64(0)};
#pragma GCC unroll 2
      for (int part = 0; part < perLane; ++part) {
        Int64 i = lanes;
        if (perLane == 2) i = shl<1>(i) + Int64(part);
        PhiloxLanes x{Int64(first_key / 4 + quad), i + Int64(query + j * V::N), Int64(pair),
                      Int64(0)};
        x.mix(keys);
        const Int64 words[4] = {x.c0, x.c1, x.c2, x.c3};
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          const Int64 stays = ones & ~sar<63>((words[r] & word) - threshold);
          factors[r] = factors[r] | (part == 0 ? stays : shl<32>(stays));
        }
      }
      for (int r = 0; r < 4; ++r) {
        int64_t bits[Vec<double>::N];
        store_int(bits, factors[r]);
        __builtin_memcpy(m.keep + ((4 * quad + r) * width + j) * V::N, bits, sizeof bits);
      }
    }
  }
}

// All that modify() and the dropout read for a panel and key block. Returns false where the bias
// hides every key. `next` queries follow in the block.
template <class S, class N>
bool pack_modifiers(Modifiers<N>& m, const AttentionParams& p, const AttentionSequence& s,
                    int64_t h, int64_t query, int64_t queries, int64_t next, int width,
                    int64_t first_key, const Visible& seen) {
  const AttentionScores& a = p.scores;
  m.position = query + s.shift - first_key;
  const int64_t at =
      s.b * a.bias_batch + h * a.bias_head + query * a.bias_row + first_key * a.bias_key;
  const auto pack = [&](auto element) {
    using E = decltype(element);
    constexpr int64_t size = sizeof(E);
    const E* const from = static_cast<const E*>(a.bias) + at;
    m.next = reinterpret_cast<const char*>(from + queries * a.bias_row);
    m.next_row = a.bias_row * size;
    m.next_bytes = seen.keys * size;
    m.next_rows =
        a.bias_key == 1 && !m.same_for_all ? smaller<int64_t>(next, width * Vec<N>::N) : 0;
    return pack_bias(m, a, from, queries, width, seen);
  };
  const bool none = a.bias_kind == AttentionBias::mask   ? pack(uint8_t{})
                    : a.bias_kind == AttentionBias::same ? pack(S{})
                    : a.bias_kind == AttentionBias::wide ? pack(N{})
                                                         : false;
  if (none) return false;
  if (m.keep != nullptr) pack_keep(m, a, s.b * p.H + h, query, width, first_key, seen);
  return true;
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
