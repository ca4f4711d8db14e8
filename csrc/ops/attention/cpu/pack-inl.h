// How data gets into the tiles and out again: packing, transposes, a thread's memory, the cut into
// panels.
#pragma once

#include <cstdint>

#include "ops/attention/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {

// Query i of a sequence.
template <class S>
SUFFUSE_INLINE S* at_query(const AttentionTensor& t, const AttentionSequence& s, int64_t i,
                           int64_t head) {
  return static_cast<S*>(t.data) + attention_query(t, s, i) + head * t.head;
}

// to[r ldt + c] = from[r ldf + c], widened. The kSlack elements after the last row are overwritten.
template <class N, class S>
SUFFUSE_INLINE void pack(N* to, int64_t ldt, const S* from, int64_t ldf, int64_t rows,
                         int64_t columns) {
  using V = Vec<N>;
  const int64_t whole = columns / V::N * V::N;
  for (int64_t r = 0; r < rows; ++r) {
    const S* const x = from + r * ldf;
    N* const y = to + r * ldt;
    for (int64_t c = 0; c < whole; c += V::N) store(y + c, load<V>(x + c));
    if (whole < columns) store(y + whole, load<V>(x + whole, static_cast<int>(columns - whole)));
  }
}
// The keys [key, key + rows) of one head of a sequence, from t. A last tile reads up to kSlack rows
// and columns more; they are 0, for leftovers could be subnormal numbers, which are slow.
template <class S, class N>
SUFFUSE_INLINE void pack_keys(N* to, const AttentionParams& p, const AttentionTensor& t,
                              const AttentionSequence& s, int64_t g, int64_t key, int64_t rows,
                              int64_t columns) {
  const S* const head = static_cast<const S*>(t.data) + g * t.head;
  const int64_t page = p.layout.pages == nullptr ? 0 : p.layout.page;
  for (int64_t r = 0, n = rows; r < rows; r += n) {
    if (page > 0) n = smaller(rows - r, page - (s.k_row + key + r) % page);
    pack(to + r * columns, columns, head + attention_key(p, t, s, key + r), t.row, n, columns);
  }
  const int64_t slack = (rows < kKeys ? kSlack * columns : 0) + kSlack;
  __builtin_memset(to + rows * columns, 0, static_cast<size_t>(slack) * sizeof(N));
}

// to[c ldt + r] = factor from[r ldf + c] for lanes r of one vector; rows >= `rows` are 0
template <class N, class S>
SUFFUSE_INLINE void pack_transposed(N* to, int64_t ldt, const S* from, int64_t ldf, int64_t rows,
                                    int64_t columns, N factor) {
  using V = Vec<N>;
  for (int64_t c = 0; c < columns; c += V::N) {
    const int width = static_cast<int>(smaller<int64_t>(V::N, columns - c));
    V x[V::N];
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) {
      x[r] = r >= rows       ? zero<V>()
             : width == V::N ? load<V>(from + r * ldf + c)
                             : load<V>(from + r * ldf + c, width);
      x[r] *= V(factor);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r)
      if (r < width) store(to + (c + r) * ldt, x[r]);
  }
}

// to[r ldt + c] = factor[r] from[c ldf + r], rounded to S, for the first `rows` lanes r of one
// vector
template <class N, class S>
SUFFUSE_INLINE void unpack_transposed(S* to, int64_t ldt, const N* from, int64_t ldf, int64_t rows,
                                      int64_t columns, Vec<N> factor) {
  using V = Vec<N>;
  for (int64_t c = 0; c < columns; c += V::N) {
    const int width = static_cast<int>(smaller<int64_t>(V::N, columns - c));
    V x[V::N];
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) {
      // A row without keys is 0 whatever its sum holds.
      const V value = r < width ? load<V>(from + (c + r) * ldf) * factor : zero<V>();
      x[r] = select(factor == V(0), zero<V>(), value);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int r = 0; r < V::N; ++r) {
      if (r >= rows) continue;
      if (width == V::N) {
        store(to + r * ldt + c, x[r]);
      } else {
        store(to + r * ldt + c, x[r], width);
      }
    }
  }
}

// The calling thread's memory, cut into arrays that begin at cache lines. Walked twice: once to add
// up the sizes, once to hand out the arrays. What an array holds at first is of no consequence:
// tiles may read past the data, but every lane and row that does so is masked or never stored.
class Scratch {
 public:
  template <class T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlign - 1) / kAlign * kAlign;
    return data_ == nullptr ? nullptr : reinterpret_cast<T*>(data_ + at);
  }
  void allocate() {
    data_ = static_cast<char*>(attention_scratch(used_));
    used_ = 0;
  }

 private:
  static constexpr int64_t kAlign = 64;

  char* data_ = nullptr;
  int64_t used_ = 0;
};

// Width in vectors of the next panel where `left` queries are left.
template <class N>
SUFFUSE_INLINE int panel_width(int64_t left) {
  constexpr int L = Vec<N>::N;
  return kWidest == 4 && left > 2 * L ? 4 : left > L ? 2 : 1;
}

// Cuts [first, first + queries) into panels and returns how many there are: at most one is not of
// the widest kind.
template <class N, class Panel>
int64_t cut_into_panels(Panel* panels, int64_t first, int64_t queries) {
  int64_t count = 0;
  while (queries > 0) {
    Panel& p = panels[count++];
    p.width = panel_width<N>(queries);
    p.first = first;
    p.queries = smaller<int64_t>(queries, p.width * Vec<N>::N);
    first += p.queries;
    queries -= p.queries;
  }
  return count;
}

// Rows of the keys of a sequence: factor from[r ld + c], rounded to S.
template <class N, class S>
void store_keys(const AttentionParams& p, const AttentionTensor& to, const AttentionSequence& s,
                int64_t g, const N* from, int64_t ld, int64_t columns, N factor) {
  using V = Vec<N>;
  for (int64_t r = 0; r < s.S; ++r) {
    S* const y = static_cast<S*>(to.data) + attention_key(p, to, s, r) + g * to.head;
    for (int64_t c = 0; c < columns; c += V::N) {
      const V x = load<V>(from + r * ld + c) * V(factor);
      store(y + c, x, static_cast<int>(smaller<int64_t>(V::N, columns - c)));
    }
  }
}

}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
