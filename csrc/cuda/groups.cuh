// Groups of W elements of one sample in registers, moved in one word of 8 or 16 bytes each where
// their address allows.
#pragma once

#include <string.h>

#include <cstdint>
#include <type_traits>

#include "cuda/groups.h"
#include "cuda/vocab.cuh"

namespace suffuse {

// Elements [e + first, e + last) of a sample; none where first >= last.
struct Group {
  int64_t e;
  int first, last;
};

// The g-th group of W elements of a sample.
template <int W>
SUFFUSE_DEVICE Group group_at(int64_t elements, int64_t sample, int64_t g) {
  const int64_t e = g * W - group_shift(elements, sample);
  return {e, e < 0 ? static_cast<int>(-e) : 0,
          elements - e < W ? static_cast<int>(elements - e) : W};
}

SUFFUSE_DEVICE double widen(double x) { return x; }
template <class S>
SUFFUSE_DEVICE float widen(S x) {
  return gpu::to_float(x);
}
template <class S, class T>
SUFFUSE_DEVICE S narrow(T x) {
  if constexpr (sizeof(S) == 8) {
    return x;
  } else {
    return gpu::from_float<S>(x);
  }
}

// The elements of a word: 2 doubles, 4 floats, or 4 or 8 of the types of 2 bytes.
template <class S, class Word, class T, int W>
SUFFUSE_DEVICE void unpack_group(const Word& word, T (&out)[W]) {
  if constexpr (sizeof(S) == 2) {
    uint32_t pairs[W / 2];
    memcpy(pairs, &word, sizeof word);
#pragma unroll
    for (int k = 0; k < W; k += 2) {
      const float2 both = gpu::unpack<S>(pairs[k / 2]);
      out[k] = both.x;
      out[k + 1] = both.y;
    }
  } else {
    memcpy(out, &word, sizeof word);
  }
}
template <class S, class Word, class T, int W>
SUFFUSE_DEVICE Word pack_group(const T (&in)[W]) {
  Word word;
  if constexpr (sizeof(S) == 2) {
    uint32_t pairs[W / 2];
#pragma unroll
    for (int k = 0; k < W; k += 2) pairs[k / 2] = gpu::pack<S>(in[k], in[k + 1]);
    memcpy(&word, pairs, sizeof word);
  } else {
    memcpy(&word, in, sizeof word);
  }
  return word;
}

template <int kBytes>
using GroupWord = std::conditional_t<kBytes == 8, uint2, uint4>;

template <class Word>
SUFFUSE_DEVICE bool is_aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Word) == 0;
}

// The group's elements of the sample at p; the others are 0 and not touched. kOnce: no other access
// of the launch needs them, and none writes them.
template <bool kOnce = true, class S, class T, int W>
SUFFUSE_DEVICE void load_group(const S* p, const Group& group, T (&out)[W]) {
  using Word = GroupWord<W * sizeof(S)>;
  const S* from = p + group.e;
  if (group.last - group.first == W && is_aligned<Word>(from)) {
    unpack_group<S>(kOnce ? gpu::load_vector_once<Word>(from) : gpu::load_vector<Word>(from), out);
  } else {
#pragma unroll
    for (int k = 0; k < W; k++) {
      out[k] = k >= group.first && k < group.last ? widen(from[k]) : T(0);
    }
  }
}

// Writes the group's elements, and nothing else, to the sample at p.
template <class S, class T, int W>
SUFFUSE_DEVICE void store_group(S* p, const Group& group, const T (&in)[W]) {
  using Word = GroupWord<W * sizeof(S)>;
  S* to = p + group.e;
  if (group.last - group.first == W && is_aligned<Word>(to)) {
    gpu::store_vector(to, pack_group<S, Word>(in));
  } else {
#pragma unroll
    for (int k = 0; k < W; k++) {
      if (k >= group.first && k < group.last) to[k] = narrow<S>(in[k]);
    }
  }
}

}  // namespace suffuse
