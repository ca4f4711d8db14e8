// The CUDA side's entries of the forward and of decoding, for bind_cuda.cpp.
#pragma once

#include "ops/attention/append.h"
#include "ops/attention/decode.h"
#include "ops/attention/params.h"

namespace suffuse {

// Runs on a cudaStream_t. tf32: products of float are rounded to tf32. Throws Error: float64, a
// head dim above 256, 2^28 positions or more.
void attention_fwd_cuda(const AttentionParams& p, void* stream, bool tf32 = false);

// The same for few queries over many keys, which are cut into `splits` chunks, 0: as many as suit
// the shape; for more than a few queries it is attention_fwd_cuda, to which alone tf32 matters.
// `workspace` has so many floats.
int64_t attention_decode_cuda_floats(const AttentionParams& p, int64_t splits);
void attention_decode_cuda(const AttentionParams& p, int64_t splits, void* workspace, void* stream,
                           bool tf32 = false);

// Writes rows to a cache on a cudaStream_t; those whose place is outside of it are left out. Throws
// Error: more than 2^31 - 1 rows, or elements of one.
void attention_append_cuda(const AttentionAppendParams& p, void* stream);

// Those of one type, each in a source of its own.
void attention_fwd_cuda_bf16(const AttentionParams& p, void* stream);
void attention_fwd_cuda_f16(const AttentionParams& p, void* stream);
void attention_fwd_cuda_f32(const AttentionParams& p, void* stream);
void attention_fwd_cuda_tf32(const AttentionParams& p, void* stream);

// The same on sm_90a, for calls that attention_sm90_head takes. Weak: a library that is not built
// for sm_90a has none, and their addresses are null.
[[gnu::weak]] void attention_fwd_cuda_sm90_bf16(const AttentionParams& p, int head, void* stream);
[[gnu::weak]] void attention_fwd_cuda_sm90_f16(const AttentionParams& p, int head, void* stream);

// Decoding with the keys cut, any type but float64.
void attention_decode_cuda_chunks(const AttentionDecodeParams& d, void* stream);

}  // namespace suffuse
