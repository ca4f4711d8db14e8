// attention over a cache of keys and values: its meeting point with torch on the CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <tuple>

#include "ops/attention/append_arguments-inl.h"
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
                                            Optional alibi_slopes, Optional sinks, int64_t splits,
                                            bool /*tf32*/) {
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

// Copies the rows of k or v to their places in its cache.
void append(const AttentionAppendParams& p, const AttentionTensor& cache, const AttentionTensor& x,
            int64_t columns) {
  const int64_t size = sizeof_dtype(p.dtype);
  for (int64_t b = 0; b < p.B; b++) {
    for (int64_t i = 0; i < p.T; i++) {
      const AttentionPlace place = attention_append_place(p, b, i);
      char* const to = static_cast<char*>(cache.data) +
                       (place.entry * cache.batch + place.row * cache.row) * size;
      const char* const from = static_cast<const char*>(x.data) + (b * x.batch + i * x.row) * size;
      for (int64_t g = 0; g < p.G; g++) {
        std::memcpy(to + g * cache.head * size, from + g * x.head * size,
                    static_cast<size_t>(columns * size));
      }
    }
  }
}

void attention_append(Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Optional cache_seqlens,
                      Optional cache_index, Optional block_table) {
  append_with(k_cache, v_cache, k, v, cache_seqlens, cache_index, block_table,
              [&](const AttentionAppendParams& p, const CacheLayout& cache) {
                check_places(kAppend, cache, k_cache, p.B, p.T);
                append(p, p.k_cache, p.k, p.D);
                append(p, p.v_cache, p.v, p.Dv);
              });
}

}  // namespace
}  // namespace suffuse

STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
  m.impl("attention_decode", TORCH_BOX(&suffuse::attention_decode));
  m.impl("attention_append", TORCH_BOX(&suffuse::attention_append));
}
