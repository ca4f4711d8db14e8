// Dynamic thresholding on the CPU: the quantile of |D| in each sample, by radix selection on the bit patterns.
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

// The entry of that rank in ascending order, and how many entries are up to it.
template <class Key>
struct Selected {
  Key key;
  int64_t up_to;
};

template <class T>
Selected<typename MagnitudeKey<T>::Key> select_rank(const T* values, int64_t n, int64_t rank) {
  using Key = typename MagnitudeKey<T>::Key;
  constexpr int kDigit = 11;
  int64_t counts[1 << kDigit];
  Key known = 0;     // the digits found so far
  int64_t less = 0;  // entries below all that begin with them
  int64_t equal = n;
  for (int top = 8 * sizeof(T) - 1; top > 0;) {  // without the sign
    const int shift = top > kDigit ? top - kDigit : 0;
    for (int64_t& count : counts) count = 0;
    for (int64_t i = 0; i < n; i++) {
      const Key key = key_of(values[i]);
      if (key >> top == known >> top) counts[(key >> shift) & ((1 << (top - shift)) - 1)]++;
    }
    int digit = 0;
    while (less + counts[digit] <= rank) less += counts[digit++];
    equal = counts[digit];
    known |= static_cast<Key>(digit) << shift;
    top = shift;
  }
  return {known, less + equal};
}

// The smallest entry above a key.
template <class T>
T next_above(const T* values, int64_t n, typename MagnitudeKey<T>::Key key) {
  auto best = ~typename MagnitudeKey<T>::Key(0);
  for (int64_t i = 0; i < n; i++) {
    const auto candidate = key_of(values[i]);
    best = candidate > key && candidate < best ? candidate : best;
  }
  return value_of<T>(best);
}

template <class T>
bool any_nan(const T* values, int64_t n) {
  bool found = false;
  for (int64_t i = 0; i < n; i++) found |= key_of(values[i]) > MagnitudeKey<T>::infinity;
  return found;
}

template <class T>
T scale_of(const T* values, int64_t n, double quantile, double maximum) {
  if (any_nan(values, n)) return static_cast<T>(NAN);
  const QuantileRank rank = quantile_rank(quantile, n);
  const auto found = select_rank(values, n, rank.below);
  const T below = value_of<T>(found.key);
  const bool last = rank.fraction == 0 || found.up_to > rank.below + 1;
  const T above = last ? below : next_above(values, n, found.key);
  return threshold_scale(below, above, rank.fraction, static_cast<T>(maximum));
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
      const T* values = static_cast<const T*>(p.magnitudes) + b * p.elements;
      static_cast<T*>(p.scales)[b] = scale_of(values, p.elements, p.quantile, p.maximum);
    }
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
