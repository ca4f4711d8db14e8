// The Vandermonde product: a matrix product of two tables of powers for each chunk of outputs.
#include "ops/s4_kernel/cpu/kernel.h"

#include "ops/s4_kernel/cpu/powers-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace s4 {

// The powers of one block of terms. Of each term the columns are adjacent, of each row the terms.
template <class N>
struct Tables {
  static constexpr int kTerms = 256 / sizeof(N);
  alignas(64) N column[kTerms][2][kS4Columns];
  alignas(64) N row[kS4Rows][2][kTerms];
};

template <class V, class N>
void fill_columns(Tables<N>& tables, const N* x, int terms) {
  constexpr int kStarts = kS4Columns / V::N;
  alignas(64) N start[kStarts][2][Tables<N>::kTerms], index[V::N];
  for (int i = 0; i < V::N; i++) index[i] = static_cast<N>(i);
  for (int n = 0; n < terms; n += V::N) {
    const Complex<V> lanes = gather<V>(x + 2 * n, terms - n < V::N ? terms - n : V::N);
    for (int i = 0; i < kStarts; i++) {
      const Complex<V> y = power(lanes, V(static_cast<N>(i * V::N)));
      store(&start[i][0][n], y.re);
      store(&start[i][1][n], y.im);
    }
  }
  for (int n = 0; n < terms; n++) {
    const Complex<V> first = power(Complex<V>{V(x[2 * n]), V(x[2 * n + 1])}, load<V>(index));
    for (int i = 0; i < kStarts; i++) {
      const Complex<V> y = Complex<V>{V(start[i][0][n]), V(start[i][1][n])} * first;
      store(&tables.column[n][0][i * V::N], y.re);
      store(&tables.column[n][1][i * V::N], y.im);
    }
  }
}

// Rows of weight v_n e^(x_n l), with minus their imaginary part, so that their products with the
// columns add up to a real part.
template <class V, class N>
void fill_rows(Tables<N>& tables, const N* v, const N* x, int terms, N weight, int64_t begin,
               int rows) {
  for (int n = 0; n < terms; n += V::N) {
    const int count = terms - n < V::N ? terms - n : V::N;
    Complex<V> factor = gather<V>(v + 2 * n, count);
    factor = {weight * factor.re, weight * factor.im};
    fill_powers<V>(tables.row, n, factor, gather<V>(x + 2 * n, count), begin, kS4Columns, rows);
  }
  for (int k = 0; k < rows; k++) {
    for (int n = 0; n < terms; n++) tables.row[k][1][n] = -tables.row[k][1][n];
  }
}

// From rows for the real part to rows for the imaginary one.
template <class N>
void turn_rows(Tables<N>& tables, int terms, int rows) {
  for (int k = 0; k < rows; k++) {
    for (int n = 0; n < terms; n++) {
      const N re = tables.row[k][0][n];
      tables.row[k][0][n] = -tables.row[k][1][n];
      tables.row[k][1][n] = re;
    }
  }
}

// to[r][columns] += the product of kRows rows and all columns.
template <class V, int kRows, class N>
void multiply_rows(N* to, const Tables<N>& tables, int first, int terms) {
  constexpr int kVectors = V::N * sizeof(N) == 64 ? 4 : 2;
  for (int column = 0; column < kS4Columns; column += kVectors * V::N) {
    V sum[kRows][kVectors];
    for (int r = 0; r < kRows; r++) {
      for (int i = 0; i < kVectors; i++)
        sum[r][i] = load<V>(to + r * kS4Columns + column + i * V::N);
    }
    for (int n = 0; n < terms; n++) {
      for (int part = 0; part < 2; part++) {
        V powers[kVectors];
        for (int i = 0; i < kVectors; i++) {
          powers[i] = load<V>(&tables.column[n][part][column + i * V::N]);
        }
        for (int r = 0; r < kRows; r++) {
          const V factor(tables.row[first + r][part][n]);
          for (int i = 0; i < kVectors; i++) sum[r][i] = muladd(factor, powers[i], sum[r][i]);
        }
      }
    }
    for (int r = 0; r < kRows; r++) {
      for (int i = 0; i < kVectors; i++) store(to + r * kS4Columns + column + i * V::N, sum[r][i]);
    }
  }
}

template <class V, class N>
void multiply(N* to, const Tables<N>& tables, int rows, int terms) {
  int k = 0;
  for (; k + 4 <= rows; k += 4) multiply_rows<V, 4>(to + k * kS4Columns, tables, k, terms);
  if (rows - k == 3) multiply_rows<V, 3>(to + k * kS4Columns, tables, k, terms);
  if (rows - k == 2) multiply_rows<V, 2>(to + k * kS4Columns, tables, k, terms);
  if (rows - k == 1) multiply_rows<V, 1>(to + k * kS4Columns, tables, k, terms);
}

// One unit after the other; units of one row share their columns.
template <class V, class N>
struct Product {
  explicit Product(const S4VandermondeParams& params) : p(params) {}

  void run(int64_t unit) {
    constexpr int64_t kTerms = Tables<N>::kTerms;
    const int64_t chunks = s4_chunks(p.length), row = unit / chunks;
    const int64_t begin = unit % chunks * kS4Chunk;
    const int count = static_cast<int>(p.length - begin < kS4Chunk ? p.length - begin : kS4Chunk);
    const int rows = (count + kS4Columns - 1) / kS4Columns, parts = p.real ? 1 : 2;
    for (int part = 0; part < parts; part++) {
      for (int i = 0; i < rows * kS4Columns; i++) sums[part][i] = 0;
    }
    for (int64_t n = 0; n < p.terms; n += kTerms) {
      const int terms = static_cast<int>(p.terms - n < kTerms ? p.terms - n : kTerms);
      const N* x = static_cast<const N*>(p.x) + 2 * (row * p.terms + n);
      const N* v = static_cast<const N*>(p.v) + 2 * (row * p.terms + n);
      if (filled != row || p.terms > kTerms) fill_columns<V>(tables, x, terms);
      fill_rows<V>(tables, v, x, terms, N(p.real ? 2 : 1), begin, rows);
      multiply<V>(sums[0], tables, rows, terms);
      if (parts == 1) continue;
      turn_rows(tables, terms, rows);
      multiply<V>(sums[1], tables, rows, terms);
    }
    filled = row;
    N* out = static_cast<N*>(p.out) + (row * p.length + begin) * parts;
    for (int i = 0; i < count; i++) {
      for (int part = 0; part < parts; part++) out[i * parts + part] = sums[part][i];
    }
  }

  const S4VandermondeParams& p;
  Tables<N> tables;
  alignas(64) N sums[2][kS4Chunk];
  int64_t filled = -1;  // the row whose columns the tables hold
};

}  // namespace s4

void s4_vandermonde_range(const S4VandermondeParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const auto run = [&](auto tag) {
    using N = typename decltype(tag)::type;
    s4::Product<Vec<N>, N> product(p);
    for (int64_t unit = begin; unit < end; unit++) product.run(unit);
  };
  p.dtype == DType::f64 ? run(TypeTag<double>()) : run(TypeTag<float>());
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
