// What modifies the scores of a panel of 32 queries with a group of 32 keys, laid out like them.
#pragma once

#include "ops/attention/cpu/half/rows-inl.h"
#include "ops/attention/cpu/modifiers-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

// Where a key of the group is in tiles [2][2]: its first 16 queries; the others are kTileWords on.
SUFFUSE_INLINE int64_t place_of(int64_t key) { return key / 16 * 2 * kTileWords + key % 16 * V::N; }

// M keys from a place in tiles [2][2].
template <int M>
SUFFUSE_INLINE void load_scores(V (&x)[M][2], const float* from) {
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) x[i][j] = load<V>(from + j * kTileWords + i * V::N);
}

// Bias to be fetched: 32 pieces of as many elements, from which element after the first of the
// group on, and how far apart.
struct Ahead {
  int64_t offset, step;
};

enum class GroupBias {
  none,
  column,  // one number a key
  tiles,   // numbers, laid out like the scores
  bits,    // a mask, which is part of `seen`
  pairs,   // bfloat16: for each half of the queries the pairs of keys, [16][query]
};

// tanh(y) = y (c0 + c1 y^2 + c2 y^4 + c3 y^6) within 6e-7, where |y| is at most kNear. Lawson's
// algorithm, as in simd/math.h, for the absolute error. Powers of |scale| / softcap are formed,
// which kNearest and kFarthest keep in range.
constexpr float kNear = 0.6f, kNearest = 1e-5f, kFarthest = 1e3f;
constexpr float kNearTanh[4] = {0.9999909996986389f, -0.33298975229263306f, 0.12974554300308228f,
                                -0.03961128741502762f};

struct GroupModifiers {
  Modifiers<float> m;  // but its bias and dropout, which are here
  GroupBias kind;
  float* bias;  // column or tiles, in base 2
  uint32_t* pairs;
  uint32_t* seen;     // [query]: bit k is set where the key k is seen
  bool some_hidden;   // whether `seen` matters
  float* keep;        // laid out like the scores, or null
  const char* ahead;  // what a later group reads of the bias: see Ahead
  int64_t ahead_step, ahead_bytes;

  bool near;          // whether all arguments of tanh are
  float near_limit;   // of the products
  float near_cap[4];  // the polynomial, of a product

  // Fetches the pieces [begin, end) of it.
  SUFFUSE_INLINE void fetch_ahead(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t at = 0; at < ahead_bytes; at += 64)
        __builtin_prefetch(ahead + i * ahead_step + at, 0, 2);
  }

  // Products of M keys of the group from `key` on become scores, plus offset. derivative(i, j,
  // tanh) is called where there is a softcap.
  template <int M, class Derivative>
  SUFFUSE_INLINE void modify(V (&x)[M][2], const V (&offset)[2], int64_t key,
                             Derivative derivative) const {
    if (m.cap > 0 && !near) {
      attention::modify(x, offset, m, key, 0, [&](V product, V from, int i, int j) {
        const V t = tanh_fast(product * V(m.cap_argument));
        derivative(i, j, t);
        return muladd(t, V(m.cap), from);
      });
    } else {
      const V inverse(1 / m.cap);
      attention::modify(x, offset, m, key, 0, [&](V product, V from, int i, int j) {
        const V square = product * product;
        V factor = muladd(square, V(near_cap[3]), V(near_cap[2]));
        factor = muladd(square, factor, V(near_cap[1]));
        factor = muladd(square, factor, V(near_cap[0]));
        derivative(i, j, product * factor * inverse);
        return muladd(product, factor, from);
      });
    }
    if (kind != GroupBias::none && kind != GroupBias::bits) add_bias(x, key);
    if (some_hidden) hide(x, key);
  }

 private:
  static SUFFUSE_INLINE Words bit(int64_t i) {
    return Words(static_cast<int32_t>(uint32_t{1} << i));
  }
  template <int M>
  SUFFUSE_INLINE void add_bias(V (&x)[M][2], int64_t key) const {
    if (kind == GroupBias::pairs) return add_pairs(x, key);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j)
        x[i][j] += kind == GroupBias::column
                       ? V(bias[key + i])
                       : load<V>(bias + place_of(key) + i * V::N + j * kTileWords);
  }
  template <int M>
  SUFFUSE_INLINE void add_pairs(V (&x)[M][2], int64_t key) const {
#pragma GCC unroll 8
    for (int i = 0; i < M; i += 2)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const Words pair = load_int<V>(pairs + j * kTileWords + (key + i) / 2 * V::N);
        x[i][j] = muladd(low_half(pair), V(static_cast<float>(kLog2e)), x[i][j]);
        x[i + 1][j] = muladd(high_half(pair), V(static_cast<float>(kLog2e)), x[i + 1][j]);
      }
  }
  template <int M>
  SUFFUSE_INLINE void hide(V (&x)[M][2], int64_t key) const {
    const V hidden(-SoftmaxState<V>::kInf);
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Words bits = load_int<V>(seen + j * V::N);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) x[i][j] = select(nonzero(bits & bit(key + i)), x[i][j], hidden);
    }
  }
};

// Bit k of [begin, end) of 32.
SUFFUSE_INLINE uint32_t bits_between(int64_t begin, int64_t end) {
  begin = larger<int64_t>(begin, 0);
  end = smaller<int64_t>(end, 32);
  if (begin >= end) return 0;
  return static_cast<uint32_t>((uint64_t{1} << end) - (uint64_t{1} << begin));
}

// Bit k is whether the byte k strides on is not 0; 0 from n <= 32 on.
SUFFUSE_INLINE uint32_t nonzero_bits(const uint8_t* p, int64_t stride, int64_t n) {
  uint32_t bits = 0;
  for (int64_t k = 0; k < n; ++k) bits |= uint32_t{p[k * stride] != 0} << k;
  return bits;
}

// The bias of a group, of which `keys` keys and `rows` queries are there, by kind; `from` is its
// first element.
template <class E>
SUFFUSE_INLINE void pack_column(GroupModifiers& g, const AttentionScores& a, const E* from,
                                int64_t keys) {
  for (int64_t key = 0; key < smaller<int64_t>(keys, kGroup); key += V::N) {
    const int n = static_cast<int>(smaller<int64_t>(V::N, keys - key));
    store(g.bias + key, load_bias<V>(from + key * a.bias_key, a.bias_key, n));
  }
}
template <class E>
SUFFUSE_INLINE void pack_tiles(GroupModifiers& g, const AttentionScores& a, const E* from,
                               int64_t rows, int64_t keys) {
  for (int64_t key = 0; key < smaller<int64_t>(keys, kGroup); key += V::N)
    for (int64_t row = 0; row < kPanel; row += V::N)
      pack_bias_tile<float>(g.bias + place_of(key) + row / V::N * kTileWords, V::N,
                            from + row * a.bias_row + key * a.bias_key, a.bias_row, a.bias_key,
                            rows - row, keys - key, false);
}
SUFFUSE_INLINE void pack_bits(GroupModifiers& g, const AttentionScores& a, const uint8_t* from,
                              int64_t rows, int64_t keys) {
  const bool whole = rows >= kPanel && keys >= kGroup && a.bias_key == 1;
  for (int64_t r = 0; r < kPanel; ++r) {
    const uint8_t* const row = from + r * a.bias_row;
    g.seen[r] = whole      ? nonzero_bytes(row)
                : r < rows ? nonzero_bits(row, a.bias_key, smaller<int64_t>(keys, kGroup))
                           : ~uint32_t{0};
  }
  g.some_hidden = true;
}
// Those of 16 queries; what is not there is 0.
SUFFUSE_INLINE void pack_pairs(uint32_t* to, const bfloat16* from, int64_t row, int64_t rows,
                               int64_t keys) {
  if (rows >= 16 && keys >= kGroup) {
    V x[16];
    load_transposed_pairs(x, from, row);
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) store_int(to + r * V::N, bits(x[r]));
    return;
  }
  Words x[16];
  for (int r = 0; r < 16; ++r) x[r] = r < rows ? load_pairs(from + r * row, keys) : Words(0);
  transpose_words(x);
  for (int r = 0; r < 16; ++r) store_int(to + r * V::N, x[r]);
}
template <class E>
SUFFUSE_INLINE void pack_group_bias(GroupModifiers& g, const AttentionScores& a, const E* from,
                                    int64_t rows, int64_t keys) {
  if (g.kind == GroupBias::column) return pack_column(g, a, from, keys);
  if constexpr (std::is_same_v<E, uint8_t>) {
    pack_bits(g, a, from, rows, keys);
  } else {
    if constexpr (std::is_same_v<E, bfloat16>) {
      if (g.kind == GroupBias::pairs) {
        for (int64_t j = 0; j < 2; ++j)
          pack_pairs(g.pairs + j * kTileWords, from + 16 * j * a.bias_row, a.bias_row,
                     rows - 16 * j, keys);
        return;
      }
    }
    pack_tiles(g, a, from, rows, keys);
  }
}

SUFFUSE_INLINE GroupBias bias_kind(const AttentionParams& p) {
  const AttentionScores& a = p.scores;
  if (a.bias_kind == AttentionBias::none) return GroupBias::none;
  if (a.bias_row == 0) return GroupBias::column;
  if (a.bias_kind == AttentionBias::mask) return GroupBias::bits;
  const bool pairs =
      p.dtype == DType::bf16 && a.bias_kind == AttentionBias::same && a.bias_key == 1;
  return pairs ? GroupBias::pairs : GroupBias::tiles;
}

__attribute__((noinline)) inline void pack_group_keep(const GroupModifiers& g,
                                                      const AttentionParams& p,
                                                      const AttentionSequence& s, int64_t head,
                                                      int64_t query, int64_t key) {
  const Dropout<float> dropout(p.scores, s.b * p.H + head);
  for (int64_t i = 0; i < kGroup; i += 4)
    for (int64_t j = 0; j < 2; ++j)
      dropout.factors(g.keep + place_of(i) + j * kTileWords, V::N, query + j * V::N, (key + i) / 4);
}

// All that the modification of the group of keys from `key` on and the panel from `query` on reads.
// No product is larger than `largest`.
__attribute__((noinline)) inline void pack_group(GroupModifiers& g, const AttentionParams& p,
                                                 const AttentionSequence& s, int64_t head,
                                                 int64_t query, int64_t key, float largest,
                                                 Ahead ahead) {
  g.near = largest <= g.near_limit;
  g.m.position = query + s.shift - key;
  g.some_hidden = is_cut(s, key, query);
  const auto pack = [&](auto* from) {
    constexpr int64_t size = sizeof *from;
    g.ahead = reinterpret_cast<const char*>(from + ahead.offset);
    g.ahead_step = ahead.step * size;
    g.ahead_bytes = p.scores.bias_key == 1 && g.kind != GroupBias::column ? kGroup * size : 0;
    pack_group_bias(g, p.scores, from, s.T - query, s.S - key);
    return false;
  };
  if (p.dtype == DType::bf16) {
    visit_bias<bfloat16, float>(p, s, head, query, key, pack);
  } else {
    visit_bias<float16, float>(p, s, head, query, key, pack);
  }
  if (is_cut(s, key, query)) {
    const bool mask = g.kind == GroupBias::bits;
    for (int64_t r = 0; r < kPanel; ++r) {
      const int64_t place = g.m.position + r;
      g.seen[r] = (mask ? g.seen[r] : ~uint32_t{0}) &
                  bits_between(place - s.left, smaller(place + s.right + 1, s.S - key));
    }
  }
  if (g.keep != nullptr) pack_group_keep(g, p, s, head, query, key);
}

// For the head of a sequence.
SUFFUSE_INLINE void begin_head(GroupModifiers& g, const AttentionParams& p, int64_t b, int64_t h,
                               const Scale<float>& scale) {
  g.m = modifiers(p, b, h, scale);
  const bool in_range = g.m.cap_argument > kNearest && g.m.cap_argument < kFarthest;
  g.near_limit = in_range ? kNear / g.m.cap_argument : -1;
  float power = g.m.cap * g.m.cap_argument;
  for (int i = 0; i < 4; ++i) {
    g.near_cap[i] = kNearTanh[i] * power;
    power *= g.m.cap_argument * g.m.cap_argument;
  }
}

template <class Scratch>
void lay_out(Scratch& s, GroupModifiers& g, const AttentionParams& p) {
  g.kind = bias_kind(p);
  g.bias = s.template take<float>(kGroupFloats);
  g.pairs = s.template take<uint32_t>(kGroupWords);
  g.seen = s.template take<uint32_t>(kPanel);
  if (p.scores.dropout > 0) g.keep = s.template take<float>(kGroupFloats);
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
