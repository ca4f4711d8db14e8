// Dynamic thresholding on the CPU: the quantile of |D| in each sample, by radix selection on the
// bit patterns.
#include <cmath>

#include "ops/sampler_step/cpu/kernel.h"
#include "ops/sampler_step/cpu/operands-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace {

template <class X, class M>
void magnitudes(const SamplerStepParams& p, int64_t sample, int64_t first, int64_t last) {
  using Operands = DataOperands<X, M>;
  using T = typename Operands::T;
  using V = typename Operands::V;
  const Operands operands(p, sample);
  T* out = static_cast<T*>(p.magnitudes) + sample * p.elements;
  for (int64_t i = first; i < last; i += V::N) {
    const int n = last - i < V::N ? static_cast<int>(last - i) : V::N;
    V model[1];
    operands.template combine<1, true>(i, n, model);
    const V x = load<V>(operands.x + i, n);
    store(out + i, abs(step_data(operands.w, x, model[0])), n);
  }
}

template <class T>
SUFFUSE_INLINE typename MagnitudeKey<T>::Key key_of(T value) {
  typename MagnitudeKey<T>::Key key;
  __builtin_memcpy(&key, &value, sizeof key);
  return key;
}
template <class T>
SUFFUSE_INLINE T value_of(typename MagnitudeKey<T>::Key key) {
  T value;
  __builtin_memcpy(&value, &key, sizeof value);
  return value;
}

constexpr int kDigit = 11;  // bits of a key that one pass looks at
constexpr int kDigits = 1 << kDigit;

// How many entries have each digit. Four tables in turn, so that equal digits in a row do not wait
// for each other.
template <class T>
void count_digits(const T* values, int64_t n, int shift, int64_t (&counts)[kDigits]) {
  uint32_t tables[4][kDigits];
  for (int64_t& count : counts) count = 0;
  for (int64_t start = 0; start < n; start += INT32_MAX) {
    const int64_t stop = n - start < INT32_MAX ? n : start + INT32_MAX;
    __builtin_memset(tables, 0, sizeof tables);
    for (int64_t i = start; i < stop; i++) {
      tables[i & 3][key_of(values[i]) >> shift & (kDigits - 1)]++;
    }
    for (int d = 0; d < kDigits; d++) {
      counts[d] += int64_t(tables[0][d]) + tables[1][d] + tables[2][d] + tables[3][d];
    }
  }
}

// The entry of a rank in ascending order, and the one after it.
template <class T>
struct Neighbours {
  T below, above;
};

// Radix selection from the top digit down. Destroys values: after each pass those with the wanted
// digits are at the front.
template <class T>
Neighbours<T> select_rank(T* values, int64_t n, int64_t rank) {
  using Key = typename MagnitudeKey<T>::Key;
  Key next = ~Key(0);                            // smallest key above the wanted digits
  for (int top = 8 * sizeof(T) - 1; top > 0;) {  // without the sign
    const int shift = top > kDigit ? top - kDigit : 0;
    int64_t counts[kDigits];
    count_digits(values, n, shift, counts);
    Key digit = 0;
    while (counts[digit] <= rank) rank -= counts[digit++];
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
      const T value = values[i];
      const Key key = key_of(value), own = key >> shift & (kDigits - 1);
      const Key above = own > digit ? key : ~Key(0);
      next = above < next ? above : next;
      values[kept] = value;
      kept += own == digit;
    }
    n = kept;
    top = shift;
  }
  const T below = values[0];  // all that are left are equal
  return {below, rank + 1 < n ? below : value_of<T>(next)};
}

template <class T>
bool any_nan(const T* values, int64_t n) {
  typename MagnitudeKey<T>::Key largest = 0;
  for (int64_t i = 0; i < n; i++) {
    largest = key_of(values[i]) > largest ? key_of(values[i]) : largest;
  }
  return largest > MagnitudeKey<T>::infinity;
}

template <class T>
T scale_of(T* values, int64_t n, double quantile, double maximum) {
  if (any_nan(values, n)) return static_cast<T>(NAN);
  const QuantileRank rank = quantile_rank(quantile, n);
  const Neighbours<T> found = select_rank(values, n, rank.below);
  const T above = rank.fraction == 0 ? found.below : found.above;
  return threshold_scale(found.below, above, rank.fraction, static_cast<T>(maximum));
}

}  // namespace

void sampler_step_magnitudes(const SamplerStepParams& p, int64_t begin, int64_t end) {
  visit_storage(p, [&](auto x, auto m) {
    for_each_run(p, begin, end, [&](int64_t sample, int64_t first, int64_t last) {
      magnitudes<typename decltype(x)::type, typename decltype(m)::type>(p, sample, first, last);
    });
  });
}

void sampler_step_scales(const SamplerStepParams& p, int64_t begin, int64_t end) {
  visit_dtype(p.x_type, [&](auto x) {
    using T = Arithmetic<typename decltype(x)::type>;
    for (int64_t b = begin; b < end; b++) {
      T* values = static_cast<T*>(p.magnitudes) + b * p.elements;
      static_cast<T*>(p.scales)[b] = scale_of(values, p.elements, p.quantile, p.maximum);
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
