// Values of any type, as 32-bit words: that is how they pass between lanes, and how they lie in
// shared memory one word a bank.
#pragma once

#include <string.h>

#include "cuda/vocab.cuh"

namespace suffuse {

template <class T>
struct Words {
  static_assert(sizeof(T) % 4 == 0);
  static constexpr int kCount = sizeof(T) / 4;
  uint32_t word[kCount];
};

template <class T>
SUFFUSE_DEVICE Words<T> to_words(T value) {
  Words<T> words;
  memcpy(&words, &value, sizeof value);
  return words;
}
template <class T>
SUFFUSE_DEVICE T from_words(const Words<T>& words) {
  T value;
  memcpy(&value, &words, sizeof value);
  return value;
}

// 32 values in shared memory, lane after lane without bank conflicts.
template <class T>
struct LaneArray {
  uint32_t word[Words<T>::kCount][32];
};
template <class T>
SUFFUSE_DEVICE void put(LaneArray<T>& array, int index, T value) {
  const Words<T> words = to_words(value);
#pragma unroll
  for (int w = 0; w < Words<T>::kCount; w++) array.word[w][index] = words.word[w];
}
template <class T>
SUFFUSE_DEVICE T get(const LaneArray<T>& array, int index) {
  Words<T> words;
#pragma unroll
  for (int w = 0; w < Words<T>::kCount; w++) words.word[w] = array.word[w][index];
  return from_words(words);
}

// The value of lane `source`. All 32 lanes call these together.
template <class T>
SUFFUSE_DEVICE T shuffle(T value, int source) {
  Words<T> words = to_words(value);
#pragma unroll
  for (int w = 0; w < Words<T>::kCount; w++) {
    words.word[w] = __shfl_sync(0xffffffffu, words.word[w], source);
  }
  return from_words(words);
}
// The value of the lane whose index differs in the bits of `flip`.
template <class T>
SUFFUSE_DEVICE T shuffle_xor(T value, int flip) {
  Words<T> words = to_words(value);
#pragma unroll
  for (int w = 0; w < Words<T>::kCount; w++) {
    words.word[w] = __shfl_xor_sync(0xffffffffu, words.word[w], flip);
  }
  return from_words(words);
}
// The value of the lane `distance` before; the first `distance` lanes get their own.
template <class T>
SUFFUSE_DEVICE T shuffle_up(T value, int distance) {
  Words<T> words = to_words(value);
#pragma unroll
  for (int w = 0; w < Words<T>::kCount; w++) {
    words.word[w] = __shfl_up_sync(0xffffffffu, words.word[w], distance);
  }
  return from_words(words);
}

}  // namespace suffuse
