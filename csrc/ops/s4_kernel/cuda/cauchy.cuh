// The Cauchy product on CUDA: an output for each thread, or for a group of them that share its
// terms.
#pragma once

#include "ops/s4_kernel/cuda/config.h"
#include "ops/s4_kernel/cuda/power.cuh"

namespace suffuse {

template <class T>
struct S4CauchyShared {
  S4Complex<T> v[kS4CauchyTerms], w[kS4CauchyTerms];
  S4Complex<T> sums[2][kS4Threads];
};

SUFFUSE_DEVICE float reciprocal(float x) { return gpu::reciprocal_approx(x); }
SUFFUSE_DEVICE double reciprocal(double x) { return 1 / x; }

// sum + v / (z - w) and its partner of the conjugates of v and w, by one division and with
// differences of the parts only: the CPU's kernel has the formula.
template <class T>
SUFFUSE_DEVICE void add_pair(S4Complex<T>& sum, const S4Complex<T>& z, const S4Complex<T>& v,
                             const S4Complex<T>& w) {
  const T a = z.re - w.re, twice = 2 * v.re;
  const T re = fma(a, a, (w.im - z.im) * (w.im + z.im)), im = 2 * (a * z.im);
  const T scale = reciprocal(fma(re, re, im * im));
  const T top = fma(twice, a, -2 * (v.im * w.im)), top_im = twice * z.im;
  sum.re = fma(fma(top, re, top_im * im), scale, sum.re);
  sum.im = fma(fma(top_im, re, -(top * im)), scale, sum.im);
}

// sums[i] + v / (z - w)^(power + i)
template <class T>
SUFFUSE_DEVICE void add_term(S4Complex<T> (&sums)[2], const S4Complex<T>& z, const S4Complex<T>& v,
                             const S4Complex<T>& w, int power) {
  const T re = z.re - w.re, im = z.im - w.im;
  const T scale = reciprocal(fma(re, re, im * im));
  const S4Complex<T> factor{re * scale, -(im * scale)};
  S4Complex<T> product = factor;
  for (int i = 1; i < power; i++) product = product * factor;
  sums[0] = add_product(sums[0], v, product);
  sums[1] = add_product(sums[1], v, product * factor);
}

// sum + value, with what rounding has taken from the sum so far (Kahan 1965).
template <class T>
SUFFUSE_DEVICE void add_to(T& sum, T& lost, T value) {
  const T all = value - lost, after = sum + all;
  lost = (after - sum) - all;
  sum = after;
}
template <class T>
SUFFUSE_DEVICE void add_to(S4Complex<T>& sum, S4Complex<T>& lost, const S4Complex<T>& value) {
  add_to(sum.re, lost.re, value.re);
  add_to(sum.im, lost.im, value.im);
}

// kPairs: the first power of conjugate pairs alone; else any power, with the next one.
template <class T, int kGroups, bool kPairs>
__global__ void __launch_bounds__(kS4Threads, 2)
    s4_cauchy_kernel(const S4CauchyParams p, int64_t tiles) {
  constexpr int kOutputs = kS4Threads / kGroups;
  auto& shared = gpu::shared<S4CauchyShared<T>>();
  const int64_t row = blockIdx.x / tiles, begin = (blockIdx.x - row * tiles) * kOutputs;
  const int64_t output = begin + threadIdx.x % kOutputs;
  const int group = threadIdx.x / kOutputs;
  const auto* v = static_cast<const S4Complex<T>*>(p.v) + row * p.terms;
  const auto* w = static_cast<const S4Complex<T>*>(p.w) + row * p.w_row;
  const auto* at = static_cast<const S4Complex<T>*>(p.z) + row * p.z_row;
  const bool there = output < p.outputs;
  const S4Complex<T> z = there ? at[output] : S4Complex<T>{};
  S4Complex<T> totals[2] = {}, lost[2] = {};

  for (int64_t n = 0; n < p.terms; n += kS4CauchyTerms) {
    const int64_t left = p.terms - n;
    const int terms = static_cast<int>(left < kS4CauchyTerms ? left : kS4CauchyTerms);
    __syncthreads();  // the terms before are used up
    for (int i = threadIdx.x; i < terms; i += kS4Threads) {
      shared.v[i] = v[n + i];
      shared.w[i] = w[n + i];
    }
    __syncthreads();
    for (int first = group; first < terms; first += kS4CauchyBlock * kGroups) {
      S4Complex<T> sums[2] = {};
      for (int b = 0; b < kS4CauchyBlock && first + b * kGroups < terms; b++) {
        const S4Complex<T> weight = shared.v[first + b * kGroups];
        const S4Complex<T> pole = shared.w[first + b * kGroups];
        if (kPairs) {
          add_pair(sums[0], z, weight, pole);
        } else {
          add_term(sums, z, weight, pole, p.power);
          if (p.conj) add_term(sums, z, {weight.re, -weight.im}, {pole.re, -pole.im}, p.power);
        }
      }
      for (int s = 0; s < (kPairs ? 1 : 2); s++) add_to(totals[s], lost[s], sums[s]);
    }
  }

  S4Complex<T>* out[2] = {static_cast<S4Complex<T>*>(p.out), static_cast<S4Complex<T>*>(p.next)};
#pragma unroll
  for (int s = 0; s < (kPairs ? 1 : 2); s++) {
    S4Complex<T> sum = totals[s];
    if (kGroups > 1) {
      shared.sums[s][threadIdx.x] = sum;
      __syncthreads();
      for (int i = 1; i < kGroups && group == 0; i++) {
        const S4Complex<T> other = shared.sums[s][threadIdx.x + i * kOutputs];
        sum = add(sum, other);
      }
    }
    if (there && group == 0 && out[s]) out[s][row * p.outputs + output] = sum;
  }
}

// Calls fn(name, kernel, shape, arguments...) for the launch that p asks for.
template <class T, class Fn>
void with_s4_cauchy_kernel(const S4CauchyParams& p, Fn&& fn) {
  const int64_t tiles = s4_cauchy_tiles(p);
  const LaunchShape shape{p.rows * tiles, kS4Threads,
                          static_cast<int32_t>(sizeof(S4CauchyShared<T>))};
  const bool pairs = p.conj && p.power == 1 && !p.next;
  const auto call = [&](auto kernel) { fn("the Cauchy product", kernel, shape, p, tiles); };
  if (s4_cauchy_groups(p) == 1) {
    pairs ? call(s4_cauchy_kernel<T, 1, true>) : call(s4_cauchy_kernel<T, 1, false>);
  } else {
    pairs ? call(s4_cauchy_kernel<T, 8, true>) : call(s4_cauchy_kernel<T, 8, false>);
  }
}

}  // namespace suffuse
