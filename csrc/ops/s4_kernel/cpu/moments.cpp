// The transposed Vandermonde product: terms on the lanes; of each row of a chunk first the sums
// over its columns, then those over the rows.
#include "ops/s4_kernel/cpu/kernel.h"
#include "ops/s4_kernel/cpu/powers-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace s4 {

// Rows at once: as many as there are registers for their four sums.
constexpr int kSumRows = kVecBytes == 64 ? 4 : 2;

// sum over the columns of u B and of j u B, B the powers of the lanes' terms.
template <class V>
struct RowSums {
  Complex<V> zeroth, first;
};

template <class V, int kRows, class N, int kTerms>
SUFFUSE_INLINE void sum_columns(RowSums<V> (&sums)[kRows], const N (*u)[kS4Columns],
                                const N (*ju)[kS4Columns], const N (*powers)[2][kTerms], int term) {
  for (RowSums<V>& sum : sums) sum = {{zero<V>(), zero<V>()}, {zero<V>(), zero<V>()}};
  for (int j = 0; j < kS4Columns; j++) {
    const V re = load<V>(&powers[j][0][term]), im = load<V>(&powers[j][1][term]);
    for (int r = 0; r < kRows; r++) {
      const V weight(u[r][j]), slope(ju[r][j]);
      sums[r].zeroth = {muladd(weight, re, sums[r].zeroth.re),
                        muladd(weight, im, sums[r].zeroth.im)};
      sums[r].first = {muladd(slope, re, sums[r].first.re), muladd(slope, im, sums[r].first.im)};
    }
  }
}

template <class V>
SUFFUSE_INLINE Complex<V> add(const Complex<V>& a, const Complex<V>& b) {
  return {a.re + b.re, a.im + b.im};
}

// One unit: the part of u that lies in a chunk of one row.
template <class V, class N>
struct Moments {
  static constexpr int kTerms = 256 / sizeof(N);

  explicit Moments(const S4MomentsParams& params) : p(params) {}

  void run(int64_t unit) {
    const int64_t chunks = s4_chunks(p.length), row = unit / chunks;
    begin = unit % chunks * kS4Chunk;
    const int64_t left = p.length - begin;
    const int count = static_cast<int>(left < kS4Chunk ? left : kS4Chunk);
    rows = (count + kS4Columns - 1) / kS4Columns;
    rows = (rows + kSumRows - 1) / kSumRows * kSumRows;
    N* zeroth = static_cast<N*>(p.zeroth) + 2 * row * p.terms;
    N* first = static_cast<N*>(p.first) + 2 * row * p.terms;
    if (chunks > 1) {
      zeroth = static_cast<N*>(p.partials) + 4 * unit * p.terms;
      first = zeroth + 2 * p.terms;
    }
    for (int part = 0; part < (p.complex ? 2 : 1); part++) {
      take(row, part, count);
      for (int64_t n = 0; n < p.terms; n += kTerms) {
        const int terms = static_cast<int>(p.terms - n < kTerms ? p.terms - n : kTerms);
        fill(static_cast<const N*>(p.x) + 2 * (row * p.terms + n), terms);
        for (int i = 0; i < terms; i += V::N) {
          const int lanes = terms - i < V::N ? terms - i : V::N;
          sum_rows(zeroth + 2 * (n + i), first + 2 * (n + i), i, lanes, part);
        }
      }
    }
  }

 private:
  // u, and u times its column, of one part; 0 behind its end.
  void take(int64_t row, int part, int count) {
    const int parts = p.complex ? 2 : 1;
    const N* from = static_cast<const N*>(p.u) + (row * p.length + begin) * parts + part;
    for (int i = 0; i < rows * kS4Columns; i++) {
      const int k = i / kS4Columns, j = i % kS4Columns;
      u[k][j] = i < count ? from[i * parts] : N(0);
      ju[k][j] = u[k][j] * static_cast<N>(j);
    }
  }

  void fill(const N* x, int terms) {
    const Complex<V> one{V(1), V(0)};
    for (int n = 0; n < terms; n += V::N) {
      const Complex<V> lanes = gather<V>(x + 2 * n, terms - n < V::N ? terms - n : V::N);
      fill_powers<V>(column, n, one, lanes, 0, 1, kS4Columns);
      fill_powers<V>(power_of_row, n, one, lanes, begin, kS4Columns, rows);
    }
  }

  // The moments of the lanes' terms; those of the imaginary part of u are added, times i.
  void sum_rows(N* zeroth, N* first, int term, int lanes, int part) {
    Complex<V> moments[2] = {{zero<V>(), zero<V>()}, {zero<V>(), zero<V>()}};
    for (int k = 0; k < rows; k += kSumRows) {
      RowSums<V> sums[kSumRows];
      sum_columns<V>(sums, u + k, ju + k, column, term);
      for (int r = 0; r < kSumRows; r++) {
        const Complex<V> power{load<V>(&power_of_row[k + r][0][term]),
                               load<V>(&power_of_row[k + r][1][term])};
        const V l(static_cast<N>(begin + (k + r) * kS4Columns));
        const Complex<V> moment{muladd(l, sums[r].zeroth.re, sums[r].first.re),
                                muladd(l, sums[r].zeroth.im, sums[r].first.im)};
        moments[0] = add(moments[0], power * sums[r].zeroth);
        moments[1] = add(moments[1], power * moment);
      }
    }
    keep(zeroth, moments[0], lanes, part);
    keep(first, moments[1], lanes, part);
  }

  static void keep(N* to, const Complex<V>& moment, int lanes, int part) {
    alignas(64) N re[V::N], im[V::N];
    store(re, moment.re);
    store(im, moment.im);
    for (int i = 0; i < lanes; i++) {
      to[2 * i] = part ? to[2 * i] - im[i] : re[i];
      to[2 * i + 1] = part ? to[2 * i + 1] + re[i] : im[i];
    }
  }

  const S4MomentsParams& p;
  int64_t begin = 0;
  int rows = 0;  // of this chunk, a multiple of kSumRows
  alignas(64) N u[kS4Rows][kS4Columns], ju[kS4Rows][kS4Columns];
  alignas(64) N column[kS4Columns][2][kTerms], power_of_row[kS4Rows][2][kTerms];
};

}  // namespace s4

void s4_moments_range(const S4MomentsParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const auto run = [&](auto tag) {
    using N = typename decltype(tag)::type;
    s4::Moments<Vec<N>, N> moments(p);
    for (int64_t unit = begin; unit < end; unit++) moments.run(unit);
  };
  p.dtype == DType::f64 ? run(TypeTag<double>()) : run(TypeTag<float>());
}

void s4_moments_finish_range(const S4MomentsParams& p, int64_t begin, int64_t end) {
  const auto run = [&](auto tag) {
    using N = typename decltype(tag)::type;
    const int64_t chunks = s4_chunks(p.length), parts = 2 * p.terms;
    for (int64_t i = begin * parts; i < end * parts; i++) {
      const int64_t row = i / parts;
      const N* from = static_cast<const N*>(p.partials) + 2 * row * chunks * parts + i % parts;
      N zeroth = 0, first = 0;
      for (int64_t c = 0; c < chunks; c++) {
        zeroth += from[2 * c * parts];
        first += from[(2 * c + 1) * parts];
      }
      static_cast<N*>(p.zeroth)[i] = zeroth;
      static_cast<N*>(p.first)[i] = first;
    }
  };
  p.dtype == DType::f64 ? run(TypeTag<double>()) : run(TypeTag<float>());
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
