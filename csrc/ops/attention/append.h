// Writing rows of keys and values to a cache: what its kernels are given, and where a row goes.
#pragma once

#include "ops/attention/params.h"

namespace suffuse {

struct AttentionAppendParams {
  AttentionTensor k, v;              // [B, T, G, D], [B, T, G, Dv]
  AttentionTensor k_cache, v_cache;  // [entries, rows, G, D], [entries, rows, G, Dv]
  int64_t B, T, G, D, Dv;
  int64_t entries;         // of the caches
  int64_t room;            // keys that fit a sequence's part of them
  AttentionLayout layout;  // k_used: the keys that are there already
  DType dtype;
};

// A row of a cache.
struct AttentionPlace {
  int64_t entry, row;
};

// Where row i of sequence b goes. An entry that is none of the cache's: the row has no place.
SUFFUSE_HD SUFFUSE_INLINE AttentionPlace attention_append_place(const AttentionAppendParams& p,
                                                                int64_t b, int64_t i) {
  const AttentionLayout& l = p.layout;
  const int64_t row = l.k_used[b] + i;
  if (row < 0 || row >= p.room) return {-1, 0};
  if (l.pages != nullptr) return {l.pages[b * l.pages_row + row / l.page], row % l.page};
  return {l.cache_index == nullptr ? b : l.cache_index[b], row};
}

}  // namespace suffuse
