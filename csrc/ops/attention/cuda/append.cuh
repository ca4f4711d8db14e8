// Writing rows of keys and values to a cache on CUDA: a thread copies one word of each.
#pragma once

#include "cuda/vocab.cuh"
#include "ops/attention/cuda/append_config.h"

namespace suffuse {

// The words of one thread: the head that they belong to, and their place in its row.
struct AttentionAppendThread {
  int64_t b, i;
  uint32_t g, byte;
};

// Divisions of 32 bits: 64-bit ones would take as long as the rest.
template <class Word>
SUFFUSE_DEVICE AttentionAppendThread attention_append_thread(const AttentionAppendParams& p) {
  const uint32_t words = static_cast<uint32_t>(attention_append_words(p, sizeof(Word)));
  const uint32_t each = static_cast<uint32_t>(p.G) * words, T = static_cast<uint32_t>(p.T);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * AttentionAppend::kThreads;
  const int64_t whole = first / each;
  const uint32_t index = static_cast<uint32_t>(first - whole * each) + threadIdx.x;
  const uint32_t token = static_cast<uint32_t>(whole) + index / each, inside = index % each;
  const uint32_t word = inside % words;
  return {token / T, token % T, inside / words, word * static_cast<uint32_t>(sizeof(Word))};
}

template <class Word>
SUFFUSE_DEVICE Word load_word(const Word* p) {
  if constexpr (sizeof(Word) == 2)
    return *p;
  else
    return gpu::load_vector<Word>(p);
}
template <class Word>
SUFFUSE_DEVICE void store_word(Word* p, Word word) {
  if constexpr (sizeof(Word) == 2)
    *p = word;
  else
    gpu::store_vector(p, word);
}

// Launched by attention_append_shape. What stands in the layout is not known to be right: a row
// without a place in the cache is not written.
template <class Word>
__global__ void __launch_bounds__(AttentionAppend::kThreads)
    attention_append_kernel(const __grid_constant__ AttentionAppendParams p) {
  const AttentionAppendThread at = attention_append_thread<Word>(p);
  if (at.b >= p.B) return;
  const int64_t size = sizeof_dtype(p.dtype);
  const auto word = [&](const AttentionTensor& t, int64_t batch, int64_t row) {
    const int64_t element = batch * t.batch + row * t.row + at.g * t.head;
    return reinterpret_cast<Word*>(static_cast<char*>(t.data) + element * size + at.byte);
  };
  const bool has_key = at.byte < p.D * size, has_value = at.byte < p.Dv * size;
  Word key{}, value{};
  if (has_key) key = load_word(word(p.k, at.b, at.i));
  if (has_value) value = load_word(word(p.v, at.b, at.i));
  const AttentionPlace to = attention_append_place(p, at.b, at.i);
  if (to.entry < 0 || to.entry >= p.entries) return;
  if (has_key) store_word(word(p.k_cache, to.entry, to.row), key);
  if (has_value) store_word(word(p.v_cache, to.entry, to.row), value);
}

// launch(name, kernel, shape, arguments), for the launcher and for tests.
template <class Launch>
void attention_append_pass(const AttentionAppendParams& p, const Launch& launch) {
  const int bytes = attention_append_bytes(p);
  const LaunchShape shape = attention_append_shape(p, bytes);
  if (shape.blocks == 0) return;
  const auto run = [&](auto tag) {
    using Word = typename decltype(tag)::type;
    launch("attention_append_kernel", attention_append_kernel<Word>, shape, p);
  };
  if (bytes == 16) return run(TypeTag<uint4>());
  if (bytes == 8) return run(TypeTag<uint2>());
  if (bytes == 4) return run(TypeTag<uint32_t>());
  run(TypeTag<uint16_t>());
}

}  // namespace suffuse
