// The arguments of attention_append, checked, as params. Part of the files that bind it, which have
// included torch.
#pragma once

#include <optional>

#include "ops/attention/append.h"
#include "ops/attention/decode_arguments-inl.h"

namespace suffuse {
namespace {

void check_append(const Tensor& k_cache, const Tensor& v_cache, const Tensor& k, const Tensor& v,
                  const Optional& cache_seqlens) {
  check_rank(kAppend, "k", k, 4, "[B, T, G, D]");
  check_rank(kAppend, "v", v, 4, "[B, T, G, Dv]");
  check_caches(kAppend, k, "k", k_cache, v_cache);
  check_same_dtype(kAppend, "v", v, "k", k);
  check_same_device(kAppend, "v", v, "k", k);
  const int64_t B = k.size(0), T = k.size(1), G = k_cache.size(2);
  const int64_t k_sizes[] = {B, T, G, k_cache.size(3)}, v_sizes[] = {B, T, G, v_cache.size(3)};
  check_shape(kAppend, "k", k, shape(k_sizes), "with G and D of k_cache");
  check_shape(kAppend, "v", v, shape(v_sizes), "with B and T of k, G and Dv of v_cache");
  if (!cache_seqlens) fail(kAppend, "cache_seqlens", "the keys that each sequence has", "None");
}

// Calls run(params, cache layout) with what the arguments say.
template <class Run>
void append_with(Tensor& k_cache, Tensor& v_cache, const Tensor& k, const Tensor& v,
                 const Optional& cache_seqlens, const Optional& cache_index,
                 const Optional& block_table, Run run) {
  check_append(k_cache, v_cache, k, v, cache_seqlens);
  const CacheLayout cache(kAppend, k_cache, k.size(0), cache_seqlens, cache_index, std::nullopt,
                          block_table);
  const auto adjacent = [](const Tensor& t) {
    return t.size(3) > 1 && t.stride(3) != 1 ? torch::stable::contiguous(t) : t;
  };
  const Tensor keys = adjacent(k), values = adjacent(v);
  AttentionAppendParams p{};
  p.k = rows_of(keys);
  p.v = rows_of(values);
  p.k_cache = result_rows(k_cache);
  p.v_cache = result_rows(v_cache);
  p.B = k.size(0), p.T = k.size(1), p.G = k.size(2), p.D = k.size(3), p.Dv = v.size(3);
  p.entries = k_cache.size(0);
  p.room = cache.room();
  p.layout = cache.layout;
  p.dtype = dtype_of(kAppend, "k", k);
  run(p, cache);
}

}  // namespace
}  // namespace suffuse
