// The arguments of the ops over a cache, as params. Part of the files that bind them, which have
// included torch.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/attention/arguments-inl.h"

namespace suffuse {
namespace {

constexpr char kDecode[] = "attention_decode", kAppend[] = "attention_append";

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

// Where the rows of B sequences are in a cache; keeps the tensors that say so. What stands in them
// is not looked at: on CUDA that would wait for the device.
class CacheLayout {
 public:
  CacheLayout(const char* op, const Tensor& k_cache, int64_t B, const Optional& lengths,
              const Optional& index, const Optional& left_pad, const Optional& table)
      : op_(op), cache_(k_cache), B_(B) {
    layout.k_used = numbers("cache_seqlens", lengths);
    layout.cache_index = numbers("cache_index", index);
    layout.left_pad = numbers("left_pad", left_pad);
    if (table) fill_pages(*table);
    if (!table && !index && B > k_cache.size(0)) {
      fail(op, "k_cache", "at least " + std::to_string(B) + " entries",
           std::to_string(k_cache.size(0)));
    }
    if (table && index) fail(op, "cache_index", "None with a block_table", "a tensor");
  }

  // Keys that fit a sequence's part of the cache.
  int64_t room() const {
    return layout.pages == nullptr ? cache_.size(1) : layout.pages_row * layout.page;
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

  const char* op_;
  const Tensor& cache_;
  int64_t B_;
  std::vector<Tensor> kept_;
};

AttentionTensor rows_of(const Tensor& t) {
  return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
}

// The arguments of attention_decode but for the layout; keeps the tensors that they point into.
class DecodeCall {
 public:
  DecodeCall(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache) : q_(q) {
    check_rank(kDecode, "q", q, 4, "[B, T, H, D]");
    check_caches(kDecode, q, "q", k_cache, v_cache);
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
    kept_.push_back(p.D > 1 && q.stride(3) != 1 ? torch::stable::contiguous(q) : q);
    p.q = rows_of(kept_.back());
    p.k = rows_of(k_cache);
    p.v = rows_of(v_cache);
    p.lse_batch = p.H * p.T;
    p.lse_head = p.T;
  }

  void fill_scores(double scale, int64_t left, int64_t right, double softcap, const Optional& alibi,
                   const Optional& sinks, int64_t splits) {
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
    const int64_t all[] = {p.B, p.H}, heads[] = {p.H};
    const bool each = alibi && alibi->dim() == 2;
    s.alibi = numbers("alibi_slopes", alibi, each ? shape(all) : shape(heads), "[H] or [B, H]");
    s.alibi_batch = each ? p.H : 0;
    s.sinks = numbers("sinks", sinks, shape(heads), "[H]");
  }

  AttentionParams p{};

 private:
  const void* numbers(const char* name, const Optional& t, Sizes sizes, const char* why) {
    if (!t) return nullptr;
    check_shape(kDecode, name, *t, sizes, why);
    if (t->scalar_type() != wide_type(p.dtype)) {
      fail(kDecode, name, "dtype " + dtype_name(wide_type(p.dtype)), dtype_name(t->scalar_type()));
    }
    check_same_device(kDecode, name, *t, "q", q_);
    kept_.push_back(torch::stable::contiguous(*t));
    return kept_.back().const_data_ptr();
  }

  const Tensor& q_;
  std::vector<Tensor> kept_;
};

}  // namespace
}  // namespace suffuse
