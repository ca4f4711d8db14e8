// The transposed Vandermonde product on CUDA: a block for each chunk of a row, of which it holds
// one part of u, and a few terms at a time.
#pragma once

#include "ops/s4_kernel/cuda/powers.cuh"

namespace suffuse {

template <class T>
struct S4MomentsShared {
  T u[kS4Rows][kS4Columns + 1];  // rows begin in different banks
  S4Digits<T> digits;
  S4Complex<T> column[kS4Columns][kS4Terms];
  S4Complex<T> sums[2][kS4Groups][kS4Terms];
};

// The part of a chunk of u; 0 behind its end.
template <class T>
SUFFUSE_DEVICE void take_chunk(S4MomentsShared<T>& shared, const S4MomentsParams& p, int64_t row,
                               int64_t begin, int part) {
  for (int i = threadIdx.x; i < kS4Chunk; i += kS4Threads) {
    const int64_t l = begin + i;
    T value = 0;
    if (l < p.length && p.complex) {
      const auto u = static_cast<const S4Complex<T>*>(p.u)[row * p.length + l];
      value = part ? u.im : u.re;
    } else if (l < p.length) {
      value = static_cast<const T*>(p.u)[row * p.length + l];
    }
    shared.u[i / kS4Columns][i % kS4Columns] = value;
  }
}

template <class T>
struct S4RowMoments {
  S4Complex<T> zeroth, first;
};

// The moments over the rows group + 16 i of one term.
template <class T>
SUFFUSE_DEVICE S4RowMoments<T> sum_rows(const S4MomentsShared<T>& shared, int64_t begin, int group,
                                        int term) {
  constexpr int kRows = kS4Rows / kS4Groups;
  S4RowMoments<T> rows[kRows] = {};
  for (int j = 0; j < kS4Columns; j++) {
    const S4Complex<T> power = shared.column[j][term];
    const T place = static_cast<T>(j);
#pragma unroll
    for (int i = 0; i < kRows; i++) {
      const T u = shared.u[group + kS4Groups * i][j], ju = u * place;
      rows[i].zeroth = {fma(u, power.re, rows[i].zeroth.re), fma(u, power.im, rows[i].zeroth.im)};
      rows[i].first = {fma(ju, power.re, rows[i].first.re), fma(ju, power.im, rows[i].first.im)};
    }
  }
  S4RowMoments<T> total = {};
#pragma unroll
  for (int i = 0; i < kRows; i++) {
    const int k = group + kS4Groups * i;
    const T l = static_cast<T>(begin + kS4Columns * k);
    const S4Complex<T> power = shared.digits.row(k, term);
    const S4Complex<T>& sum = rows[i].zeroth;
    const S4Complex<T> moment{fma(l, sum.re, rows[i].first.re), fma(l, sum.im, rows[i].first.im)};
    total.zeroth = add_product(total.zeroth, power, sum);
    total.first = add_product(total.first, power, moment);
  }
  return total;
}

// Block b: chunk b % chunks of row b / chunks.
template <class T>
__global__ void __launch_bounds__(kS4Threads, 2)
    s4_moments_kernel(const S4MomentsParams p, int64_t chunks) {
  auto& shared = gpu::shared<S4MomentsShared<T>>();
  const int64_t row = blockIdx.x / chunks, begin = (blockIdx.x - row * chunks) * kS4Chunk;
  const auto* x = static_cast<const S4Complex<T>*>(p.x) + row * p.terms;
  const int term = threadIdx.x % kS4Terms, group = threadIdx.x / kS4Terms;
  auto* zeroth = static_cast<S4Complex<T>*>(p.zeroth) + row * p.terms;
  auto* first = static_cast<S4Complex<T>*>(p.first) + row * p.terms;
  if (chunks > 1) {
    zeroth =
        static_cast<S4Complex<T>*>(p.partials) + static_cast<int64_t>(blockIdx.x) * 2 * p.terms;
    first = zeroth + p.terms;
  }
  for (int part = 0; part < (p.complex ? 2 : 1); part++) {
    __syncthreads();  // the other part is used up
    take_chunk(shared, p, row, begin, part);
    for (int64_t n = 0; n < p.terms; n += kS4Terms) {
      const int terms = static_cast<int>(p.terms - n < kS4Terms ? p.terms - n : kS4Terms);
      fill_digits<8>(shared.digits, x + n, terms, begin, [](int) { return S4Complex<T>{1, 0}; });
      __syncthreads();
      for (int i = threadIdx.x; i < kS4Columns * kS4Terms; i += kS4Threads) {
        shared.column[i / kS4Terms][i % kS4Terms] =
            shared.digits.column(i / kS4Terms, i % kS4Terms);
      }
      __syncthreads();
      const S4RowMoments<T> mine = sum_rows(shared, begin, group, term);
      shared.sums[0][group][term] = mine.zeroth;
      shared.sums[1][group][term] = mine.first;
      __syncthreads();
      if (group < 2 && term < terms) {  // group: which of the moments
        S4Complex<T> sum = shared.sums[group][0][term];
        for (int i = 1; i < kS4Groups; i++) {
          const S4Complex<T> other = shared.sums[group][i][term];
          sum = add(sum, other);
        }
        S4Complex<T>& to = (group ? first : zeroth)[n + term];
        to = part ? add(to, S4Complex<T>{-sum.im, sum.re}) : sum;
      }
    }
  }
}

// Adds the chunks' moments up; a thread for each of both moments of all rows and terms.
template <class T>
__global__ void __launch_bounds__(kS4Threads)
    s4_moments_finish_kernel(const S4MomentsParams p, int64_t chunks) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kS4Threads + threadIdx.x;
  const int64_t pair = i / p.terms, term = i - pair * p.terms;
  if (pair >= 2 * p.rows) return;
  const int64_t row = pair / 2, which = pair - 2 * row;
  const auto* from =
      static_cast<const S4Complex<T>*>(p.partials) + (row * chunks * 2 + which) * p.terms + term;
  S4Complex<T> sum = {};
  for (int64_t c = 0; c < chunks; c++) sum = add(sum, from[2 * c * p.terms]);
  static_cast<S4Complex<T>*>(which ? p.first : p.zeroth)[row * p.terms + term] = sum;
}

// Calls fn(name, kernel, shape, arguments...) for each launch that p asks for, in order.
template <class T, class Fn>
void with_s4_moments_kernels(const S4MomentsParams& p, Fn&& fn) {
  const int64_t chunks = s4_chunks(p.length);
  const LaunchShape shape{p.rows * chunks, kS4Threads,
                          static_cast<int32_t>(sizeof(S4MomentsShared<T>))};
  fn("the transposed Vandermonde product", s4_moments_kernel<T>, shape, p, chunks);
  if (chunks == 1) return;
  const int64_t blocks = (2 * p.rows * p.terms + kS4Threads - 1) / kS4Threads;
  fn("the sums of its chunks", s4_moments_finish_kernel<T>, LaunchShape{blocks, kS4Threads, 0}, p,
     chunks);
}

}  // namespace suffuse
