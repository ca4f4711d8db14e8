// Attention of a few queries over many keys (split-KV decoding): what its kernels are given.
#pragma once

#include "ops/attention/params.h"

namespace suffuse {

// The keys of a sequence are cut into chunks. Each gives a partial result per row, and these are
// merged in their order.
struct AttentionDecodeParams {
  AttentionParams forward;
  int64_t chunk, chunks;  // keys of one, and how many there are of the longest sequence
  void* workspace;        // [B, chunks, H, T, attention_decode_row(Dv)], wide
};

// A partial result: O before its division, then at attention_padded(Dv) top and sum of its softmax.
SUFFUSE_HD constexpr int64_t attention_decode_row(int64_t Dv) { return attention_padded(Dv) + 16; }

}  // namespace suffuse
