// The host half of csrc/cuda/words/memory.cuh.
#pragma once

#include <type_traits>

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu {

template <class T>
SUFFUSE_DEVICE T& shared(SUFFUSE_WHERE) {
  static_assert(std::is_trivially_default_constructible_v<T>);
  return *static_cast<T*>(emulator::shared_memory(sizeof(T), 1024, {file, line}));
}

template <class V>
SUFFUSE_DEVICE V load_vector(const void* p, SUFFUSE_WHERE) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
  V value;
  emulator::load(p, &value, sizeof value, {file, line});
  return value;
}

template <class V>
SUFFUSE_DEVICE void store_vector(void* p, V value, SUFFUSE_WHERE) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
  emulator::store(p, &value, sizeof value, {file, line});
}

template <class V>
SUFFUSE_DEVICE V load_vector_once(const void* p, SUFFUSE_WHERE) {
  return load_vector<V>(p, file, line);
}

template <class V>
SUFFUSE_DEVICE void store_vector_once(void* p, V value, SUFFUSE_WHERE) {
  store_vector(p, value, file, line);
}

}  // namespace suffuse::gpu
