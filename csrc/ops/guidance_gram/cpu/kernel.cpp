// Products and sums on the CPU, in double: a product of two floats is exact there, and what cancels
// in the difference of two nearly equal model outputs is still known. All ISAs give the same bits:
// each has kLanes sums, one vector or several.
#include "ops/guidance_gram/cpu/kernel.h"

#include "simd/vec.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace {

using V = Vec<double>;

constexpr int kLanes = 32;
constexpr int kVectors = kLanes / V::N;
constexpr int kBlock = 1024;  // elements of all tensors that are in the first cache as doubles

double add_up(const V (&sums)[kVectors]) {
  alignas(64) double lanes[kLanes];
  for (int u = 0; u < kVectors; u++) store(lanes + u * V::N, sums[u]);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int k = 0; k < width; k++) lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

// exact: a and b hold no more than 24 significant bits, so that no product is rounded.
template <bool kExact>
double dot(const double* a, const double* b, int n) {
  V sums[kVectors];
  for (V& sum : sums) sum = zero<V>();
  for (int i = 0; i < n; i += kLanes) {
    for (int u = 0; u < kVectors; u++) {
      const V x = load<V>(a + i + u * V::N), y = load<V>(b + i + u * V::N);
      sums[u] = kExact ? muladd(x, y, sums[u]) : fma(x, y, sums[u]);
    }
  }
  return add_up(sums);
}

double total(const double* a, int n) {
  V sums[kVectors];
  for (V& sum : sums) sum = zero<V>();
  for (int i = 0; i < n; i += kLanes) {
    for (int u = 0; u < kVectors; u++) sums[u] = sums[u] + load<V>(a + i + u * V::N);
  }
  return add_up(sums);
}

// n elements as doubles, and zeros up to a multiple of kLanes.
template <class S>
void widen(const S* from, int n, double* to) {
  if constexpr (sizeof(S) == 8) {
    for (int i = 0; i < n; i++) to[i] = from[i];
  } else if constexpr (sizeof(S) == 4) {
    for (int i = 0; i < n; i++) to[i] = static_cast<double>(from[i]);
  } else {
    using F = Vec<float>;
    alignas(64) float narrow[kBlock];
    for (int i = 0; i < n; i += F::N) {
      store(narrow + i, load<F>(from + i, n - i < F::N ? n - i : F::N));
    }
    for (int i = 0; i < n; i++) to[i] = static_cast<double>(narrow[i]);
  }
  for (int i = n; i % kLanes != 0; i++) to[i] = 0;
}

template <class S>
void row(const GuidanceGramParams& p, int64_t sample, int64_t first, int64_t last, double* out) {
  alignas(64) double values[GuidanceGramParams::kMaxTensors][kBlock];
  const int count = p.count;
  for (int k = 0; k < gram_entries(count); k++) out[k] = 0;
  for (int64_t start = first; start < last; start += kBlock) {
    const int n = last - start < kBlock ? static_cast<int>(last - start) : kBlock;
    for (int i = 0; i < count; i++) {
      const S* data = static_cast<const S*>(p.tensors[i].data) + sample * p.tensors[i].batch_stride;
      widen(data + start, n, values[i]);
      for (int j = 0; j <= i; j++) {
        out[gram_product(i, j)] += dot<sizeof(S) != 8>(values[i], values[j], n);
      }
      out[gram_sum(count, i)] += total(values[i], n);
    }
  }
}

}  // namespace

void guidance_gram_rows(const GuidanceGramParams& p, int64_t begin, int64_t end) {
  visit_dtype(p.type, [&](auto type) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t sample = r / p.pieces, first = r % p.pieces * kGuidanceGramPiece;
      const int64_t last =
          first + kGuidanceGramPiece < p.elements ? first + kGuidanceGramPiece : p.elements;
      row<typename decltype(type)::type>(p, sample, first, last,
                                         p.partials + r * gram_row(p.count));
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
