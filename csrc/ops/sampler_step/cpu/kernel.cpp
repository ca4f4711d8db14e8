// The step on the CPU: one pass over memory, a few vectors of every operand at a time.
#include "ops/sampler_step/cpu/kernel.h"

#include "ops/sampler_step/cpu/operands-inl.h"
#include "simd/normal.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace {

// The operands and results of one sample.
template <class X, class M>
struct Step : DataOperands<X, M> {
  using Base = DataOperands<X, M>;
  using T = typename Base::T;
  using V = typename Base::V;

  const X* terms[SamplerStepParams::kMaxTerms];
  T term_weights[SamplerStepParams::kMaxTerms];
  int term_count;
  T normal_weight;
  bool rescale;
  T scale;
  X *sample, *converted;
  void* next_input;
  DType next_type;

  Step(const SamplerStepParams& p, int64_t index)
      : Base(p, index),
        term_count(p.term_count),
        normal_weight(step_coefficient<T>(p, index, SamplerStepColumn::noise)),
        rescale(p.scales != nullptr),
        scale(rescale ? static_cast<const T*>(p.scales)[index] : T(1)),
        sample(static_cast<X*>(p.sample) + index * p.elements),
        converted(p.converted ? static_cast<X*>(p.converted) + index * p.elements : nullptr),
        next_input(nullptr),
        next_type(p.next_type) {
    for (int k = 0; k < term_count; k++) {
      terms[k] = static_cast<const X*>(p.terms[k].data) + index * p.terms[k].batch_stride;
      term_weights[k] = step_coefficient<T>(p, index, p.term_columns[k]);
    }
    if (p.next_input) {
      next_input = static_cast<char*>(p.next_input) + index * p.elements * sizeof_dtype(next_type);
    }
  }

  template <bool kPartial, bool kStream, class S>
  static SUFFUSE_INLINE void write(S* p, V value, int n) {
    if constexpr (kPartial) {
      store(p, value, n);
    } else if constexpr (kStream) {
      stream(p, value);
    } else {
      store(p, value);
    }
  }

  template <bool kPartial, bool kStream>
  SUFFUSE_INLINE void write_next(int64_t i, V value, int n) const {
    if constexpr (sizeof(X) == 8) {
      write<kPartial, kStream>(static_cast<double*>(next_input) + i, value, n);
    } else if (next_type == DType::f32) {
      write<kPartial, kStream>(static_cast<float*>(next_input) + i, value, n);
    } else if (next_type == DType::bf16) {
      write<kPartial, kStream>(static_cast<bfloat16*>(next_input) + i, value, n);
    } else {
      write<kPartial, kStream>(static_cast<float16*>(next_input) + i, value, n);
    }
  }

  // U vectors from element i on (of a single partial one, n elements). normal: the made noise of
  // element i, or null.
  template <int U, bool kPartial, bool kStream>
  SUFFUSE_INLINE void block(int64_t i, const T* normal, int n) const {
    constexpr int N = V::N;
    V model[U], sum[U];
    this->template combine<U, kPartial>(i, n, model);
    for (int u = 0; u < U; u++) {
      const V x = read<V, kPartial>(this->x + i + u * N, n);
      V data = step_data(this->w, x, model[u]);
      if (rescale) data = step_rescale(data, V(scale));
      sum[u] = step_sample(this->w, x, model[u], data);
      if (converted) {
        write<kPartial, kStream>(converted + i + u * N, step_converted(this->w, x, model[u], data),
                                 n);
      }
    }
    for (int k = 0; k < term_count; k++) {
      for (int u = 0; u < U; u++) {
        sum[u] = fma(V(term_weights[k]), read<V, kPartial>(terms[k] + i + u * N, n), sum[u]);
      }
    }
    if (normal) {
      for (int u = 0; u < U; u++) {
        sum[u] = fma(V(normal_weight), read<V, kPartial>(normal + u * N, n), sum[u]);
      }
    }
    for (int u = 0; u < U; u++) write<kPartial, kStream>(sample + i + u * N, sum[u], n);
    if (next_input) {
      for (int u = 0; u < U; u++) {
        write_next<kPartial, kStream>(i + u * N, V(this->w.next_scale) * sum[u], n);
      }
    }
  }

  template <bool kStream>
  void segment(int64_t i, int64_t end, const T* normal) const {
    constexpr int N = V::N, U = 4;
    for (; i + U * N <= end; i += U * N, normal += normal ? U * N : 0) {
      block<U, false, kStream>(i, normal, N);
    }
    for (; i + N <= end; i += N, normal += normal ? N : 0) block<1, false, kStream>(i, normal, N);
    if (i < end) block<1, true, kStream>(i, normal, static_cast<int>(end - i));
  }
};

// The made noise of one segment, in the type of the arithmetic.
template <class T>
struct NormalBuffer {
  alignas(64) T values[kNormalBlock];

  void fill(const PhiloxKeys& keys, uint64_t offset, uint64_t first, int count) {
    if constexpr (sizeof(T) == 4) {
      philox_normals(keys, offset, first, count, values);
    } else {
      alignas(64) float narrow[kNormalBlock];
      philox_normals(keys, offset, first, count, narrow);
      for (int i = 0; i < 4 * count; i++) values[i] = narrow[i];
    }
  }
};

// Segments end where the element's index in the tensor is a multiple of kNormalBlock: the blocks of
// random numbers start there, and the vectors of all results are aligned from there on.
template <class X, class M>
void run(const SamplerStepParams& p, const PhiloxKeys& keys, int64_t index, int64_t first,
         int64_t last) {
  const Step<X, M> step(p, index);
  NormalBuffer<typename Step<X, M>::T> noise;
  for (int64_t i = first; i < last;) {
    const int64_t global = index * p.elements + i, inside = global % kNormalBlock;
    const int64_t end = i + kNormalBlock - inside < last ? i + kNormalBlock - inside : last;
    if (p.philox) {
      const int64_t block = global / 4, stop = (global + (end - i) + 3) / 4;
      noise.fill(keys, p.offset, block, static_cast<int>(stop - block));
    }
    const auto* normal = p.philox ? noise.values + global % 4 : nullptr;
    if (p.stream && inside == 0) {
      step.template segment<true>(i, end, normal);
    } else {
      step.template segment<false>(i, end, normal);
    }
    i = end;
  }
}

}  // namespace

void sampler_step_range(const SamplerStepParams& p, int64_t begin, int64_t end) {
  const PhiloxKeys keys(p.seed);
  visit_storage(p, [&](auto x, auto m) {
    for_each_run(p, begin, end, [&](int64_t sample, int64_t first, int64_t last) {
      run<typename decltype(x)::type, typename decltype(m)::type>(p, keys, sample, first, last);
    });
  });
  if (p.stream) stream_fence();
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
