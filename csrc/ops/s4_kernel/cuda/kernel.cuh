// The Vandermonde product on CUDA: a block for each tile of a row, a matrix product of two tables
// of powers in shared memory.
#pragma once

#include "ops/s4_kernel/cuda/powers.cuh"

namespace suffuse {

template <class T, int kRows>
struct S4ProductShared {
  S4Digits<T> digits;
  S4Complex<T> column[kS4Terms][kS4Columns], row[kS4Terms][kS4Groups * kRows];
};

// The tables of one block of terms, from their digits.
template <class T, int kRows>
SUFFUSE_DEVICE void fill_tables(S4ProductShared<T, kRows>& shared) {
  for (int i = threadIdx.x; i < kS4Terms * kS4Columns; i += kS4Threads) {
    const int term = i / kS4Columns, j = i % kS4Columns;
    shared.column[term][j] = shared.digits.column(j, term);
  }
  constexpr int kAll = kS4Groups * kRows;
  for (int i = threadIdx.x; i < kS4Terms * kAll; i += kS4Threads) {
    shared.row[i / kAll][i % kAll] = shared.digits.row(i % kAll, i / kAll);
  }
}

// A thread has kRows x 4 outputs: rows group + 16 i, columns lane + 16 j.
template <class T, int kRows, bool kReal>
__global__ void __launch_bounds__(kS4Threads, 2)
    s4_vandermonde_kernel(const S4VandermondeParams p, int64_t tiles) {
  constexpr int kColumns = kS4Columns / kS4Lanes;
  auto& shared = gpu::shared<S4ProductShared<T, kRows>>();
  const int64_t row = blockIdx.x / tiles;
  const int64_t begin = (blockIdx.x - row * tiles) * (kS4Columns * kS4Groups * kRows);
  const auto* x = static_cast<const S4Complex<T>*>(p.x) + row * p.terms;
  const auto* v = static_cast<const S4Complex<T>*>(p.v) + row * p.terms;
  const int lane = threadIdx.x % kS4Lanes, group = threadIdx.x / kS4Lanes;
  T re[kRows][kColumns] = {}, im[kRows][kColumns] = {};

  for (int64_t n = 0; n < p.terms; n += kS4Terms) {
    const int terms = static_cast<int>(p.terms - n < kS4Terms ? p.terms - n : kS4Terms);
    fill_digits<kS4Groups * kRows / 8>(shared.digits, x + n, terms, begin,
                                       [&](int term) { return v[n + term]; });
    __syncthreads();
    fill_tables(shared);
    __syncthreads();
    for (int term = 0; term < terms; term++) {
      S4Complex<T> powers[kColumns];
#pragma unroll
      for (int j = 0; j < kColumns; j++) powers[j] = shared.column[term][lane + kS4Lanes * j];
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        const S4Complex<T> factor = shared.row[term][group + kS4Groups * i];
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
          re[i][j] = fma(-factor.im, powers[j].im, fma(factor.re, powers[j].re, re[i][j]));
          if (!kReal)
            im[i][j] = fma(factor.im, powers[j].re, fma(factor.re, powers[j].im, im[i][j]));
        }
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < kRows; i++) {
#pragma unroll
    for (int j = 0; j < kColumns; j++) {
      const int64_t l = begin + kS4Columns * (group + kS4Groups * i) + lane + kS4Lanes * j;
      if (l >= p.length) continue;
      const int64_t at = row * p.length + l;
      if (kReal) {
        static_cast<T*>(p.out)[at] = 2 * re[i][j];
      } else {
        static_cast<S4Complex<T>*>(p.out)[at] = {re[i][j], im[i][j]};
      }
    }
  }
}

// Calls fn(name, kernel, shape, arguments...) for the launch that p asks for.
template <class T, class Fn>
void with_s4_vandermonde_kernel(const S4VandermondeParams& p, Fn&& fn) {
  const int64_t tiles = s4_tiles(p);
  const auto call = [&](auto kernel, size_t shared) {
    fn("the Vandermonde product", kernel,
       LaunchShape{p.rows * tiles, kS4Threads, static_cast<int32_t>(shared)}, p, tiles);
  };
  if (s4_thread_rows(p) == 1) {
    constexpr size_t kShared = sizeof(S4ProductShared<T, 1>);
    p.real ? call(s4_vandermonde_kernel<T, 1, true>, kShared)
           : call(s4_vandermonde_kernel<T, 1, false>, kShared);
  } else {
    constexpr size_t kShared = sizeof(S4ProductShared<T, 4>);
    p.real ? call(s4_vandermonde_kernel<T, 4, true>, kShared)
           : call(s4_vandermonde_kernel<T, 4, false>, kShared);
  }
}

}  // namespace suffuse
