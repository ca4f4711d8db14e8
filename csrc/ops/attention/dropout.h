// Dropout of attention weights: which of them are zeroed, the same in forward and backward, on CPU
// and CUDA, for any tiling.
//
// The weight of query i and key j of sequence b and head h takes word j % 4 of the Philox4x32-10
// block with the counter (j / 4, i, b H + h, 0) and the key (low, high word of the seed). It is
// zeroed where the word is below dropout 2^32. i and j count within the sequence.
#pragma once

#include "math/philox.h"

namespace suffuse {

// Words below it are dropped.
SUFFUSE_HD SUFFUSE_INLINE uint32_t attention_dropout_threshold(double dropout) {
  return static_cast<uint32_t>(dropout * 4294967296.0);
}

// The random words of the keys 4 quad .. 4 quad + 3.
SUFFUSE_HD SUFFUSE_INLINE PhiloxBlock attention_dropout_words(int64_t seed, int64_t pair,
                                                              int64_t query, int64_t quad) {
  const PhiloxBlock block = {
      {static_cast<uint32_t>(quad), static_cast<uint32_t>(query), static_cast<uint32_t>(pair), 0}};
  const uint64_t bits = static_cast<uint64_t>(seed);
  return philox(block, static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32));
}

}  // namespace suffuse
