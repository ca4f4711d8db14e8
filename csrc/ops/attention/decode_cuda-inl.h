// attention over a cache of keys and values on CUDA: checks and params. Part of bind_cuda.cpp,
// which has included torch. What stands in tensors on the device (lengths, entries, pages) is not
// read, and so not checked.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ops/attention/arguments-inl.h"

namespace suffuse {
namespace {

// The arguments of attention_decode, as params; keeps the tensors that they point into.
class DecodeCall {
 public:
  DecodeCall(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache)
      : q_(q), k_cache_(k_cache) {
    check_rank(kOp, "q", q, 4, "[B, T, H, D]");
    check_rank(kOp, "k_cache", k_cache, 4, "[B, S, G, D]");
    check_rank(kOp, "v_cache", v_cache, 4, "[B, S, G, Dv]");
    p.dtype = dtype_of(kOp, "q", q);
    p.B = q.size(0), p.T = q.size(1), p.H = q.size(2), p.D = q.size(3);
    p.G = k_cache.size(2), p.Dv = v_cache.size(3);
    if (p.D < 1) fail(kOp, "q", "D >= 1 in [B, T, H, D]", to_string(q.sizes()));
    const int64_t keys[] = {k_cache.size(0), k_cache.size(1), p.G, p.D};
    const int64_t values[] = {k_cache.size(0), k_cache.size(1), p.G, p.Dv};
    check_shape(kOp, "k_cache", k_cache, shape(keys), "with D of q");
    check_shape(kOp, "v_cache", v_cache, shape(values), "with B, S and G of k_cache");
    if (p.G < 1 || p.H % p.G != 0) {
      fail(kOp, "k_cache", "G that divides the " + std::to_string(p.H) + " heads of q",
           "G = " + std::to_string(p.G));
    }
    p.q = rows(p.D > 1 && q.stride(3) != 1 ? torch::stable::contiguous(q) : q);
    p.k = cache_rows("k_cache", k_cache);
    p.v = cache_rows("v_cache", v_cache);
    p.lse_batch = p.H * p.T;
    p.lse_head = p.T;
    p.S = k_cache.size(1);
  }

  void fill_layout(const Optional& lengths, const Optional& index, const Optional& left_pad,
                   const Optional& table) {
    if (table && index) fail(kOp, "cache_index", "None with a block_table", "a tensor");
    if (!table && !index && p.B > k_cache_.size(0)) {
      fail(kOp, "k_cache", "at least " + std::to_string(p.B) + " entries",
           std::to_string(k_cache_.size(0)));
    }
    const int64_t one[] = {p.B};
    AttentionLayout& l = p.layout;
    l.k_used = integers("cache_seqlens", lengths, shape(one), "[B]");
    l.cache_index = integers("cache_index", index, shape(one), "[B]");
    l.left_pad = integers("left_pad", left_pad, shape(one), "[B]");
    if (!table) return;
    check_rank(kOp, "block_table", *table, 2, "[B, pages]");
    const int64_t pages[] = {p.B, table->size(1)};
    l.pages = integers("block_table", table, shape(pages), "[B, pages]");
    l.pages_row = table->size(1);
    l.page = k_cache_.size(1);
    p.S = l.pages_row * l.page;
  }

  void fill_scores(double scale, int64_t left, int64_t right, double softcap, const Optional& alibi,
                   const Optional& sinks) {
    if (!std::isfinite(scale)) fail(kOp, "scale", "a finite number", std::to_string(scale));
    if (!(softcap >= 0) || !std::isfinite(softcap)) {
      fail(kOp, "softcap", "a finite number >= 0", std::to_string(softcap));
    }
    AttentionScores& s = p.scores;
    s.scale = scale;
    s.softcap = softcap;
    s.left = left < 0 ? kAttentionUnlimited : left;
    s.right = right < 0 ? kAttentionUnlimited : right;
    const int64_t all[] = {p.B, p.H}, heads[] = {p.H};
    const bool each = alibi && alibi->dim() == 2;
    s.alibi = data("alibi_slopes", alibi, each ? shape(all) : shape(heads), "[H] or [B, H]",
                   ScalarType::Float, "float32");
    s.alibi_batch = each ? p.H : 0;
    s.sinks = data("sinks", sinks, shape(heads), "[H]", ScalarType::Float, "float32");
  }

  static constexpr char kOp[] = "attention_decode";
  AttentionParams p{};

 private:
  AttentionTensor rows(const Tensor& t) {
    kept_.push_back(t);
    return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
  }
  AttentionTensor cache_rows(const char* name, const Tensor& t) {
    check_same_dtype(kOp, name, t, "q", q_);
    check_same_device(kOp, name, t, "q", q_);
    if (t.size(3) > 1 && t.stride(3) != 1) {
      fail(kOp, name, "a contiguous last dimension", "stride " + std::to_string(t.stride(3)));
    }
    return rows(t);
  }
  const void* data(const char* name, const Optional& t, Sizes sizes, const char* why,
                   ScalarType type, const char* type_name) {
    if (!t) return nullptr;
    check_shape(kOp, name, *t, sizes, why);
    if (t->scalar_type() != type) {
      fail(kOp, name, "dtype " + std::string(type_name), dtype_name(t->scalar_type()));
    }
    check_same_device(kOp, name, *t, "q", q_);
    kept_.push_back(torch::stable::contiguous(*t));
    return kept_.back().const_data_ptr();
  }
  const int32_t* integers(const char* name, const Optional& t, Sizes sizes, const char* why) {
    return static_cast<const int32_t*>(data(name, t, sizes, why, ScalarType::Int, "int32"));
  }

  const Tensor &q_, &k_cache_;
  std::vector<Tensor> kept_;
};

}  // namespace
}  // namespace suffuse
