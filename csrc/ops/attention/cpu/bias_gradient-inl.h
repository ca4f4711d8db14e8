// The gradient of the bias: dS, summed over what the bias is broadcast over.
#pragma once

#include "ops/attention/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

template <class N>
struct BiasGradient {
  using V = Vec<N>;

  N* to;             // of one (batch, head), or null
  int64_t row, key;  // strides, 0 where broadcast
  bool alone;        // nothing but this is wanted

  // Adds ds [key][query] of the queries [query, query + queries) and the block from first_key on.
  template <int W>
  __attribute__((noinline)) void add(const N* ds, int64_t query, int64_t queries,
                                     const Visible& seen, int64_t first_key) const {
    if (row == 0) return add_keys<W>(ds, queries, seen, to + first_key * key);
    for (int j = 0; j < W; ++j) {
      const int64_t rows = smaller<int64_t>(V::N, queries - j * V::N);
      if (rows <= 0) break;
      N* const from_row = to + (query + j * V::N) * row;
      const int64_t keys = seen.keys_of(j, V::N);
      if (key == 0) {
        add_queries(from_row, ds + j * V::N, W * V::N, rows, seen.begin, keys);
      } else {
        add_all(from_row + first_key, ds + j * V::N, W * V::N, rows, seen.begin, keys);
      }
    }
  }

 private:
  // Summed over the queries, and the keys too where key == 0.
  template <int W>
  SUFFUSE_INLINE void add_keys(const N* ds, int64_t queries, const Visible& seen, N* out) const {
    for (int64_t k = seen.begin; k < seen.keys; ++k) {
      V sum = zero<V>();
      for (int64_t j = seen.first_vector(k, V::N); j < W && j * V::N < queries; ++j) {
        const int lanes = static_cast<int>(smaller<int64_t>(V::N, queries - j * V::N));
        sum += load<V>(ds + (k * W + j) * V::N, lanes);
      }
      out[k * key] += reduce_add(sum);
    }
  }
  SUFFUSE_INLINE void add_queries(N* out, const N* ds, int64_t ld, int64_t rows, int64_t begin,
                                  int64_t end) const {
    V sum = zero<V>();
    for (int64_t k = begin; k < end; ++k) sum += load<V>(ds + k * ld);
    N sums[V::N];
    store(sums, sum);
    for (int64_t r = 0; r < rows; ++r) out[r * row] += sums[r];
  }
  SUFFUSE_INLINE void add_all(N* out, const N* ds, int64_t ld, int64_t rows, int64_t begin,
                              int64_t end) const {
    for (int64_t k = begin / V::N * V::N; k < end; k += V::N) {
      V x[V::N];
#pragma GCC unroll 16
      for (int c = 0; c < V::N; ++c)
        x[c] = k + c >= begin && k + c < end ? load<V>(ds + (k + c) * ld) : zero<V>();
      transpose(x);
      const int keys = static_cast<int>(smaller<int64_t>(V::N, end - k));
#pragma GCC unroll 16
      for (int r = 0; r < V::N; ++r) {
        if (r >= rows) continue;
        N* const p = out + r * row + k;
        store(p, load<V>(p, keys) + x[r], keys);
      }
    }
  }
};

// Calls fn(sequence, head, block of queries) for all that the bias is broadcast over: the units
// [begin, end) of its gradient where it is `bias_apart`, each of which owns the elements it adds
// to.
template <class Fn>
SUFFUSE_INLINE void for_bias_blocks(const AttentionGradParams& a, int64_t begin, int64_t end,
                                    Fn fn) {
  const AttentionParams& f = a.forward;
  const bool each_b = a.grad_bias_batch != 0, each_h = a.grad_bias_head != 0;
  const int64_t blocks = a.grad_bias_row != 0 ? f.blocks : 1, heads = each_h ? f.H : 1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit % blocks, head = unit / blocks % heads,
                  batch = unit / blocks / heads;
    for (int64_t b = each_b ? batch : 0; b < (each_b ? batch + 1 : f.B); ++b) {
      const AttentionSequence s = attention_sequence(f, b);
      const int64_t most = (s.T + f.block_rows - 1) / f.block_rows;
      const int64_t first = a.grad_bias_row != 0 ? block : 0;
      const int64_t last = a.grad_bias_row != 0 ? smaller(block + 1, most) : most;
      for (int64_t h = each_h ? head : 0; h < (each_h ? head + 1 : f.H); ++h)
        for (int64_t i = first; i < last; ++i) fn(s, h, i);
    }
  }
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
