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

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
