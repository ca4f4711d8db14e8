// Bias, mask and dropout of a panel and key block, packed for the steps of scores-inl.h.
#pragma once

#include <type_traits>

#include "ops/attention/cpu/scores-inl.h"
#include "ops/attention/dropout.h"
#include "simd/bytes.h"
#include "simd/philox.h"
#include "simd/transposed.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

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

// x[key] of V::N queries, the bias of as many keys side by side.
template <class V, class E>
SUFFUSE_INLINE void load_bias_block(V (&x)[V::N], const E* from, int64_t row) {
  using N = typename ElementOf<V>::type;
  if constexpr (std::is_same_v<E, N>) {
    load_transposed(x, from, row);
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) x[r] *= V(static_cast<N>(kLog2e));
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) x[r] = load_bias<V>(from + r * row);
    transpose(x);
  }
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
    load_bias_block(x, from, row);
  } else {
    for (int r = 0; r < V::N; ++r) {
      x[r] = hidden;
      if (r < rows) {
        const int n = static_cast<int>(smaller<int64_t>(V::N, keys));
        x[r] = select(first<V>(n), load_bias<V>(from + r * row, key, n), hidden);
      }
    }
    transpose(x);
  }
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

// The factors of the dropout, 0 or 1 / (1 - dropout), for quads of keys.
template <class N>
struct Dropout {
  using V = Vec<N>;

  PhiloxKeys keys;
  Int64 threshold, ones;
  int64_t pair;  // b H + h

  SUFFUSE_INLINE Dropout(const AttentionScores& s, int64_t pair)
      : keys(static_cast<uint64_t>(*s.seed)),
        threshold(attention_dropout_threshold(s.dropout)),
        pair(pair) {
    const N kept = static_cast<N>(1 / (1 - s.dropout));
    int64_t bits = 0;
    __builtin_memcpy(&bits, &kept, sizeof kept);
    ones = Int64(bits);
  }

  // to[r ld + lane]: the keys 4 quad + r with V::N queries from `query` on.
  SUFFUSE_INLINE void factors(N* to, int64_t ld, int64_t query, int64_t quad) const {
    constexpr int64_t lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    constexpr int perLane = 8 / sizeof(N);  // queries of a 64-bit lane
    const Int64 lanes = Int64::load(lane), word(0xffffffff);
    Int64 result[4] = {Int64(0), Int64(0), Int64(0), Int64(0)};
#pragma GCC unroll 2
    for (int part = 0; part < perLane; ++part) {
      Int64 i = lanes;
      if (perLane == 2) i = shl<1>(i) + Int64(part);
      PhiloxLanes x{Int64(quad), i + Int64(query), Int64(pair), Int64(0)};
      x.mix(keys);
      const Int64 words[4] = {x.c0, x.c1, x.c2, x.c3};
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Int64 stays = ones & ~sar<63>((words[r] & word) - threshold);
        result[r] = result[r] | (part == 0 ? stays : shl<32>(stays));
      }
    }
    for (int r = 0; r < 4; ++r) {
      int64_t bits[Vec<double>::N];
      store_int(bits, result[r]);
      __builtin_memcpy(to + r * ld, bits, sizeof bits);
    }
  }
};

// `keep` of a panel and key block: the factors of `width` vectors of queries from `query` on. Key
// blocks begin at multiples of four keys.
template <class N>
__attribute__((noinline)) void pack_keep(const Modifiers<N>& m, const AttentionScores& s,
                                         int64_t pair, int64_t query, int width, int64_t first_key,
                                         const Visible& seen) {
  constexpr int L = Vec<N>::N;
  const Dropout<N> dropout(s, pair);
  for (int64_t quad = seen.begin / 4; 4 * quad < seen.keys; ++quad)
    for (int j = 0; j < width; ++j)
      dropout.factors(m.keep + (4 * quad * width + j) * L, width * L, query + j * L,
                      first_key / 4 + quad);
}

// Calls fn with the bias of head h at a query and a key, as a pointer to its elements.
template <class S, class N, class Fn>
SUFFUSE_INLINE bool visit_bias(const AttentionParams& p, const AttentionSequence& s, int64_t h,
                               int64_t query, int64_t key, Fn fn) {
  const AttentionScores& a = p.scores;
  const int64_t at = s.b * a.bias_batch + h * a.bias_head + query * a.bias_row + key * a.bias_key;
  switch (a.bias_kind) {
    case AttentionBias::mask:
      return fn(static_cast<const uint8_t*>(a.bias) + at);
    case AttentionBias::same:
      return fn(static_cast<const S*>(a.bias) + at);
    case AttentionBias::wide:
      return fn(static_cast<const N*>(a.bias) + at);
    case AttentionBias::none:
      break;
  }
  return false;
}

// All that to_scores() and the dropout read for a panel and key block. Returns false where the bias
// hides every key. `next` queries follow in the block.
template <class S, class N>
bool pack_modifiers(Modifiers<N>& m, const AttentionParams& p, const AttentionSequence& s,
                    int64_t h, int64_t query, int64_t queries, int64_t next, int width,
                    int64_t first_key, const Visible& seen) {
  const AttentionScores& a = p.scores;
  m.position = query + s.shift - first_key;
  const bool none = visit_bias<S, N>(p, s, h, query, first_key, [&](auto* from) {
    constexpr int64_t size = sizeof *from;
    m.next = reinterpret_cast<const char*>(from + queries * a.bias_row);
    m.next_row = a.bias_row * size;
    m.next_bytes = seen.keys * size;
    m.next_rows =
        a.bias_key == 1 && !m.same_for_all ? smaller<int64_t>(next, width * Vec<N>::N) : 0;
    return pack_bias(m, a, from, queries, width, seen);
  });
  if (none) return false;
  if (m.keep != nullptr) pack_keep(m, a, s.b * p.H + h, query, width, first_key, seen);
  return true;
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
