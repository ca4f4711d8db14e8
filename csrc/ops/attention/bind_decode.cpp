// attention over a cache of keys and values: its meeting point with torch on the CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <tuple>

#include "ops/attention/cpu/kernel.h"
#include "ops/attention/decode-inl.h"
#include "ops/attention/decode_arguments-inl.h"

namespace suffuse {
namespace {

// Every place that a kernel takes from the layout lies in the cache, also with `more` keys.
void check_places(const char* op, const CacheLayout& cache, const Tensor& k_cache, int64_t B,
                  int64_t more) {
  const AttentionLayout& l = cache.layout;
  const auto check = [&](const char* name, const int32_t* values, int64_t most) {
    for (int64_t b = 0; values != nullptr && b < B; b++) {
      if (values[b] >= 0 && values[b] <= most) continue;
      fail(op, name, "values in [0, " + std::to_string(most) + "]", std::to_string(values[b]));
    }
  };
  check("cache_index", l.cache_index, k_cache.size(0) - 1);
  check("cache_seqlens", l.k_used, cache.room() - more);
  check("left_pad", l.left_pad, cache.room());
  if (l.k_used == nullptr && more > 0) {
    fail(op, "cache_seqlens", "the keys that each sequence has", "None");
  }
  for (int64_t b = 0; l.pages != nullptr && b < B; b++) {
    const int64_t rows = (l.k_used == nullptr ? cache.room() : l.k_used[b]) + more;
    for (int64_t n = 0; n < ceil_div(rows, l.page); n++) {
      const int64_t page = l.pages[b * l.pages_row + n];
      if (page >= 0 && page < k_cache.size(0)) continue;
      fail(op, "block_table", "pages in [0, " + std::to_string(k_cache.size(0)) + ")",
           std::to_string(page));
    }
  }
}

std::tuple<Tensor, Tensor> attention_decode(Tensor q, Tensor k_cache, Tensor v_cache,
                                            Optional cache_seqlens, Optional cache_index,
                                            Optional left_pad, Optional block_table, double scale,
                                            int64_t left, int64_t right, double softcap,
                                            Optional alibi_slopes, Optional sinks, int64_t splits) {
  DecodeCall call(q, k_cache, v_cache);
  AttentionParams& p = call.p;
  const CacheLayout cache(kDecode, k_cache, p.B, cache_seqlens, cache_index, left_pad, block_table);
  check_places(kDecode, cache, k_cache, p.B, 0);
  p.layout = cache.layout;
  p.S = cache.room();
  if (p.layout.k_used != nullptr) {
    p.S = p.B == 0 ? 0 : *std::max_element(p.layout.k_used, p.layout.k_used + p.B);
  }
  call.fill_scores(scale, left, right, softcap, alibi_slopes, sinks, splits);
  const int64_t rows[] = {p.B, p.T, p.H, p.Dv}, states[] = {p.B, p.H, p.T};
  Tensor out = empty(q, shape(rows), q.scalar_type());
  Tensor lse = empty(q, shape(states), wide_type(p.dtype));
  p.out = rows_of(out);
  p.lse = lse.mutable_data_ptr();
  if (p.T * (p.H / p.G) <= kDecodeRows) {
    run_decode(p, q, wide_type(p.dtype), splits);
    return {out, lse};
  }
  const int64_t threads = torch::stable::get_num_threads();
  cut_into_blocks(p, (p.D + p.Dv) * (p.dtype == DType::f64 ? 8 : 4), p.B * p.H,
                  threads > 1 ? 4 * threads : 1);
  run_units(p.B * p.H * p.blocks, std::min(p.T, p.block_rows) * p.S * (p.D + p.Dv),
            [&](int64_t begin, int64_t end) { attention_fwd_range(p, begin, end); });
  return {out, lse};
}

// Copies the rows of x to the places of its sequences in a cache.
void append(const AttentionParams& p, const AttentionTensor& cache, const Tensor& x) {
  const int64_t size = x.element_size(), width = x.size(3) * size;
  const char* const from = static_cast<const char*>(x.const_data_ptr());
  for (int64_t b = 0; b < x.size(0); b++) {
    AttentionSequence s = attention_sequence(p, b);
    for (int64_t i = 0; i < x.size(1); i++) {
      char* const to = static_cast<char*>(cache.data) + attention_key(p, cache, s, s.S + i) * size;
      const char* const row = from + (b * x.stride(0) + i * x.stride(1)) * size;
      for (int64_t g = 0; g < x.size(2); g++) {
        std::memcpy(to + g * cache.head * size, row + g * x.stride(2) * size,
                    static_cast<size_t>(width));
      }
    }
  }
}

void attention_append(Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Optional cache_seqlens,
                      Optional cache_index, Optional block_table) {
  check_rank(kAppend, "k", k, 4, "[B, T, G, D]");
  check_rank(kAppend, "v", v, 4, "[B, T, G, Dv]");
  check_caches(kAppend, k, "k", k_cache, v_cache);
  check_same_dtype(kAppend, "v", v, "k", k);
  check_same_device(kAppend, "v", v, "k", k);
  const int64_t T = k.size(1);
  const int64_t k_sizes[] = {k.size(0), T, k_cache.size(2), k_cache.size(3)};
  const int64_t v_sizes[] = {k.size(0), T, k_cache.size(2), v_cache.size(3)};
  check_shape(kAppend, "k", k, shape(k_sizes), "with G and D of k_cache");
  check_shape(kAppend, "v", v, shape(v_sizes), "with B and T of k, G and Dv of v_cache");
  const CacheLayout cache(kAppend, k_cache, k.size(0), cache_seqlens, cache_index, std::nullopt,
                          block_table);
  check_places(kAppend, cache, k_cache, k.size(0), T);
  AttentionParams p{};
  p.layout = cache.layout;
  append(p, rows_of(k_cache), k.size(3) > 1 && k.stride(3) != 1 ? torch::stable::contiguous(k) : k);
  append(p, rows_of(v_cache), v.size(3) > 1 && v.stride(3) != 1 ? torch::stable::contiguous(v) : v);
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("attention_decode", TORCH_BOX(&suffuse::attention_decode));
  m.impl("attention_append", TORCH_BOX(&suffuse::attention_append));
}
