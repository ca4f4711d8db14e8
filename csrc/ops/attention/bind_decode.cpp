// attention over a cache of keys and values: its meeting point with torch on the CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <tuple>

#include "ops/attention/arguments-inl.h"
#include "ops/attention/cpu/kernel.h"
#include "ops/attention/decode-inl.h"

namespace suffuse {
namespace {

constexpr char kDecode[] = "attention_decode", kAppend[] = "attention_append";

// The tensors that say where a cache's rows are, checked: every place that a kernel takes from them
// lies in the cache.
class CacheLayout {
 public:
  CacheLayout(const char* op, const Tensor& k_cache, int64_t B, const Optional& lengths,
              const Optional& index, const Optional& left_pad, const Optional& table)
      : op_(op), cache_(k_cache), B_(B) {
    layout.k_used = numbers("cache_seqlens", lengths);
    layout.cache_index = numbers("cache_index", index);
    layout.left_pad = numbers("left_pad", left_pad);
    if (table) fill_pages(*table);
    if (layout.pages == nullptr && layout.cache_index == nullptr && B > k_cache.size(0)) {
      fail(op, "k_cache", "at least " + std::to_string(B) + " entries",
           std::to_string(k_cache.size(0)));
    }
    if (table && index) fail(op, "cache_index", "None with a block_table", "a tensor");
    check_values("cache_index", layout.cache_index, k_cache.size(0) - 1);
  }

  // Keys that fit a sequence's part of the cache.
  int64_t room() const {
    return layout.pages == nullptr ? cache_.size(1) : layout.pages_row * layout.page;
  }
  void check_lengths(int64_t more) const {
    check_values("cache_seqlens", layout.k_used, room() - more);
    check_values("left_pad", layout.left_pad, room());
    if (layout.k_used == nullptr && more > 0) {
      fail(op_, "cache_seqlens", "the keys that each sequence has", "None");
    }
    if (layout.pages == nullptr) return;
    for (int64_t b = 0; b < B_; b++) {
      const int64_t rows = (layout.k_used == nullptr ? room() : layout.k_used[b]) + more;
      for (int64_t n = 0; n < ceil_div(rows, layout.page); n++) {
        const int64_t page = layout.pages[b * layout.pages_row + n];
        if (page >= 0 && page < cache_.size(0)) continue;
        fail(op_, "block_table", "pages in [0, " + std::to_string(cache_.size(0)) + ")",
             std::to_string(page));
      }
    }
  }

  AttentionLayout layout{};

 private:
  const int32_t* keep(const char* name, const Tensor& t) {
    if (t.scalar_type() != ScalarType::Int) {
      fail(op_, name, "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "k_cache", cache_);
    kept_.push_back(torch::stable::contiguous(t));
    return static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }
  const int32_t* numbers(const char* name, const Optional& t) {
    if (!t) return nullptr;
    const int64_t sizes[] = {B_};
    check_shape(op_, name, *t, shape(sizes), "[B]");
    return keep(name, *t);
  }
  void fill_pages(const Tensor& table) {
    check_rank(op_, "block_table", table, 2, "[B, pages]");
    const int64_t sizes[] = {B_, table.size(1)};
    check_shape(op_, "block_table", table, shape(sizes), "[B, pages]");
    layout.pages = keep("block_table", table);
    layout.pages_row = table.size(1);
    layout.page = cache_.size(1);
  }
  void check_values(const char* name, const int32_t* values, int64_t most) const {
    for (int64_t b = 0; values != nullptr && b < B_; b++) {
      if (values[b] >= 0 && values[b] <= most) continue;
      fail(op_, name, "values in [0, " + std::to_string(most) + "]", std::to_string(values[b]));
    }
  }

  const char* op_;
  const Tensor& cache_;
  int64_t B_;
  std::vector<Tensor> kept_;
};

void check_caches(const char* op, const Tensor& like, const char* name, const Tensor& k_cache,
                  const Tensor& v_cache) {
  check_rank(op, "k_cache", k_cache, 4, "[B, S, G, D]");
  check_rank(op, "v_cache", v_cache, 4, "[B, S, G, Dv]");
  dtype_of(op, name, like);
  check_same_dtype(op, "k_cache", k_cache, name, like);
  check_same_dtype(op, "v_cache", v_cache, name, like);
  check_same_device(op, "k_cache", k_cache, name, like);
  check_same_device(op, "v_cache", v_cache, name, like);
  const int64_t sizes[] = {k_cache.size(0), k_cache.size(1), k_cache.size(2), v_cache.size(3)};
  check_shape(op, "v_cache", v_cache, shape(sizes), "with B, S and G of k_cache");
  for (const auto& [cache, t] :
       {std::pair<const char*, const Tensor&>{"k_cache", k_cache}, {"v_cache", v_cache}}) {
    if (t.size(3) > 1 && t.stride(3) != 1) {
      fail(op, cache, "a contiguous last dimension", "stride " + std::to_string(t.stride(3)));
    }
  }
}

AttentionTensor rows_of(const Tensor& t) {
  return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
}

AttentionParams decode_params(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache) {
  check_rank(kDecode, "q", q, 4, "[B, T, H, D]");
  check_caches(kDecode, q, "q", k_cache, v_cache);
  AttentionParams p{};
  p.dtype = dtype_of(kDecode, "q", q);
  p.B = q.size(0), p.T = q.size(1), p.H = q.size(2), p.D = q.size(3);
  p.G = k_cache.size(2), p.Dv = v_cache.size(3);
  if (p.D < 1) fail(kDecode, "q", "D >= 1 in [B, T, H, D]", to_string(q.sizes()));
  if (k_cache.size(3) != p.D) {
    fail(kDecode, "k_cache", "D = " + std::to_string(p.D) + " of q", to_string(k_cache.sizes()));
  }
  if (p.G < 1 || p.H % p.G != 0) {
    fail(kDecode, "k_cache", "G that divides the " + std::to_string(p.H) + " heads of q",
         "G = " + std::to_string(p.G));
  }
  p.k = rows_of(k_cache);
  p.v = rows_of(v_cache);
  p.lse_batch = p.H * p.T;
  p.lse_head = p.T;
  return p;
}

const void* numbers(const char* name, const Tensor& t, Sizes sizes, const char* why, DType dtype,
                    Tensor& holder) {
  check_shape(kDecode, name, t, sizes, why);
  if (t.scalar_type() != wide_type(dtype)) {
    fail(kDecode, name, "dtype " + dtype_name(wide_type(dtype)), dtype_name(t.scalar_type()));
  }
  holder = torch::stable::contiguous(t);
  return holder.const_data_ptr();
}

std::tuple<Tensor, Tensor> attention_decode(Tensor q, Tensor k_cache, Tensor v_cache,
                                            Optional cache_seqlens, Optional cache_index,
                                            Optional left_pad, Optional block_table, double scale,
                                            int64_t left, int64_t right, double softcap,
                                            Optional alibi_slopes, Optional sinks, int64_t splits) {
  AttentionParams p = decode_params(q, k_cache, v_cache);
  const CacheLayout cache(kDecode, k_cache, p.B, cache_seqlens, cache_index, left_pad, block_table);
  cache.check_lengths(0);
  p.layout = cache.layout;
  p.S = cache.room();
  if (p.layout.k_used != nullptr) {
    p.S = p.B == 0 ? 0 : *std::max_element(p.layout.k_used, p.layout.k_used + p.B);
  }
  if (!std::isfinite(scale)) fail(kDecode, "scale", "a finite number", std::to_string(scale));
  if (!(softcap >= 0) || !std::isfinite(softcap)) {
    fail(kDecode, "softcap", "a finite number >= 0", std::to_string(softcap));
  }
  if (splits < 0) fail(kDecode, "splits", "a number >= 0", std::to_string(splits));
  AttentionScores& s = p.scores;
  s.scale = scale;
  s.softcap = softcap;
  s.left = left < 0 ? kAttentionUnlimited : left;
  s.right = right < 0 ? kAttentionUnlimited : right;
  Tensor holders[3] = {q, q, q};
  if (p.D > 1 && q.stride(3) != 1) holders[0] = torch::stable::contiguous(q);
  p.q = rows_of(holders[0]);
  if (alibi_slopes) {
    const bool each = alibi_slopes->dim() == 2;
    const int64_t all[] = {p.B, p.H}, shared[] = {p.H};
    s.alibi = numbers("alibi_slopes", *alibi_slopes, each ? shape(all) : shape(shared),
                      "[H] or [B, H]", p.dtype, holders[1]);
    s.alibi_batch = each ? p.H : 0;
  }
  if (sinks) {
    const int64_t heads[] = {p.H};
    s.sinks = numbers("sinks", *sinks, shape(heads), "[H]", p.dtype, holders[2]);
  }
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
  cache.check_lengths(T);
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
