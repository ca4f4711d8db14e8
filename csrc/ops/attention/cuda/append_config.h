// How writing to a cache is cut for a GPU: plain functions, for launchers, kernels and tests.
#pragma once

#include "cuda/launch_shape.h"
#include "ops/attention/append.h"

namespace suffuse {

struct AttentionAppend {
  static constexpr int kThreads = 128;
};

// The largest word, 16, 8, 4 or 2 bytes, that all rows start and end at multiples of.
inline int attention_append_bytes(const AttentionAppendParams& p) {
  const int64_t size = sizeof_dtype(p.dtype);
  uint64_t all = static_cast<uint64_t>(p.D * size) | static_cast<uint64_t>(p.Dv * size);
  for (const AttentionTensor* t : {&p.k, &p.v, &p.k_cache, &p.v_cache}) {
    all |= reinterpret_cast<uintptr_t>(t->data) | static_cast<uint64_t>(t->batch * size) |
           static_cast<uint64_t>(t->row * size) | static_cast<uint64_t>(t->head * size);
  }
  return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 2;
}

// Words of a head's row that have a thread each, which copies that of the key and of the value.
SUFFUSE_HD inline int64_t attention_append_words(const AttentionAppendParams& p, int bytes) {
  return (p.D > p.Dv ? p.D : p.Dv) * sizeof_dtype(p.dtype) / bytes;
}

inline LaunchShape attention_append_shape(const AttentionAppendParams& p, int bytes) {
  const int64_t threads = p.B * p.T * p.G * attention_append_words(p, bytes);
  return {(threads + AttentionAppend::kThreads - 1) / AttentionAppend::kThreads,
          AttentionAppend::kThreads, 0};
}

}  // namespace suffuse
