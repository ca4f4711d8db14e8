// The arguments of attention, checked, as params. Part of bind.cpp and its kin, which have included
// torch.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "ops/attention/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

template <size_t n>
Sizes shape(const int64_t (&sizes)[n]) {
  return Sizes(sizes, n);
}

inline ScalarType wide_type(DType dtype) {
  return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

inline AttentionTensor result_rows(const Tensor& t) {
  return {t.mutable_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

// Everything of attention_general_fwd beside q, k and v.
struct AttentionOptions {
  double scale;
  int64_t left, right;
  bool top_left;
  double softcap;
  Optional bias, alibi, sinks;
  double dropout;
  Optional seed, q_starts, k_starts, q_used, k_used;
  std::optional<int64_t> longest_q, longest_k;
  bool tf32;  // products of float may be rounded to tf32, which CUDA alone has

  bool varied() const { return q_starts || k_starts || q_used || k_used; }
};

// Checks and fills the params; keeps the tensors that they point into.
class AttentionCall {
 public:
  AttentionCall(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                const AttentionOptions& o)
      : op_(op), q_(q) {
    check_inputs(k, v, o);
    p.dtype = dtype_of(op, "q", q);
    p.H = q.size(2);
    p.G = k.size(2);
    p.D = q.size(3);
    p.Dv = v.size(3);
    p.q = rows(q);
    p.k = rows(k);
    p.v = rows(v);
    if (o.varied()) fill_layout(o);
    p.B = o.q_starts ? o.q_starts->size(0) - 1 : o.k_starts ? o.k_starts->size(0) - 1 : q.size(0);
    p.T = q.size(1);
    p.S = k.size(1);
    p.lse_batch = p.H * p.T;
    p.lse_head = p.T;
    fill_scores(o);
  }

  // The rest of the scores; p.T and p.S are the longest sequence's by now.
  void fill_modifiers(const AttentionOptions& o) {
    AttentionScores& s = p.scores;
    if (o.bias) fill_bias(*o.bias);
    if (o.alibi) {
      const bool each = o.alibi->dim() == 2;
      const int64_t all[] = {p.B, p.H}, shared[] = {p.H};
      s.alibi = numbers("alibi_slopes", *o.alibi, each ? shape(all) : shape(shared),
                        each ? "[B, H]" : "[H] or [B, H]");
      s.alibi_batch = each ? p.H : 0;
    }
    if (o.sinks) {
      const int64_t heads[] = {p.H};
      s.sinks = numbers("sinks", *o.sinks, shape(heads), "[H]");
    }
    if (o.dropout == 0) return;
    if (!o.seed) fail(op_, "seed", "a tensor where dropout > 0", "None");
    const int64_t one[] = {1};
    s.seed = static_cast<const int64_t*>(
        integers("seed", *o.seed, shape(one), "[1]", ScalarType::Long, "int64"));
  }

  // Rows are read in place if their elements are adjacent, else copied.
  AttentionTensor rows(const Tensor& t) {
    const Tensor& r = keep(t.size(3) > 1 && t.stride(3) != 1 ? torch::stable::contiguous(t) : t);
    return {const_cast<void*>(r.const_data_ptr()), r.stride(0), r.stride(1), r.stride(2)};
  }
  // Of shape [B, H, T], or [1, H, total] where packed.
  const void* states(const char* name, const Tensor& t) {
    const int64_t sizes[] = {q_.size(0), p.H, q_.size(1)};
    check_shape(op_, name, t, shape(sizes), "[B, H, T]");
    check_dtype(name, t, wide_type(p.dtype));
    return keep(torch::stable::contiguous(t)).const_data_ptr();
  }
  AttentionTensor rows_like_out(const char* name, const Tensor& t) {
    const int64_t sizes[] = {q_.size(0), q_.size(1), p.H, p.Dv};
    check_shape(op_, name, t, shape(sizes), "[B, T, H, Dv]");
    check_dtype(name, t, q_.scalar_type());
    return rows(t);
  }

  AttentionParams p{};

 private:
  const Tensor& keep(const Tensor& t) {
    kept_.push_back(t);
    return kept_.back();
  }
  void check_dtype(const char* name, const Tensor& t, ScalarType type) {
    if (t.scalar_type() != type) {
      fail(op_, name, "dtype " + dtype_name(type), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "q", q_);
  }

  void check_inputs(const Tensor& k, const Tensor& v, const AttentionOptions& o) {
    check_rank(op_, "q", q_, 4, "[B, T, H, D]");
    check_rank(op_, "k", k, 4, "[B, S, G, D]");
    check_rank(op_, "v", v, 4, "[B, S, G, Dv]");
    dtype_of(op_, "q", q_);
    check_same_dtype(op_, "k", k, "q", q_);
    check_same_dtype(op_, "v", v, "q", q_);
    check_same_device(op_, "k", k, "q", q_);
    check_same_device(op_, "v", v, "q", q_);
    const int64_t D = q_.size(3), S = k.size(1), G = k.size(2);
    if (D < 1) fail(op_, "q", "D >= 1 in [B, T, H, D]", to_string(q_.sizes()));
    const bool packed = o.q_starts || o.k_starts;
    const int64_t k_sizes[] = {packed ? k.size(0) : q_.size(0), S, G, D};
    check_shape(op_, "k", k, shape(k_sizes), "with B and D of q");
    const int64_t v_sizes[] = {k.size(0), S, G, v.size(3)};
    check_shape(op_, "v", v, shape(v_sizes), "with B, S and G of k");
    if (G < 1 || q_.size(2) % G != 0) {
      fail(op_, "k", "G that divides the " + std::to_string(q_.size(2)) + " heads of q",
           "G = " + std::to_string(G));
    }
    if (packed) check_batches(k, o);
  }
  void check_batches(const Tensor& k, const AttentionOptions& o) {
    const auto check = [&](const char* name, const Tensor& t, const Optional& starts,
                           const Optional& other) {
      const int64_t expected = starts ? 1 : other->size(0) - 1;
      if (starts && (starts->dim() != 1 || starts->size(0) < 1)) {
        fail(op_, "cu_seqlens_" + std::string(name), "shape [N + 1]", to_string(starts->sizes()));
      }
      if (t.size(0) != expected) {
        fail(op_, name, "a batch of " + std::to_string(expected), std::to_string(t.size(0)));
      }
    };
    check("q", q_, o.q_starts, o.k_starts);
    check("k", k, o.k_starts, o.q_starts);
    if (o.q_starts && o.k_starts && o.q_starts->size(0) != o.k_starts->size(0)) {
      fail(op_, "cu_seqlens_k", "shape " + to_string(o.q_starts->sizes()) + " like cu_seqlens_q",
           to_string(o.k_starts->sizes()));
    }
  }

  void fill_scores(const AttentionOptions& o) {
    AttentionScores& s = p.scores;
    if (!std::isfinite(o.scale)) fail(op_, "scale", "a finite number", std::to_string(o.scale));
    if (!(o.softcap >= 0) || !std::isfinite(o.softcap)) {
      fail(op_, "softcap", "a finite number >= 0", std::to_string(o.softcap));
    }
    if (!(o.dropout >= 0 && o.dropout < 1)) {
      fail(op_, "dropout", "a probability in [0, 1)", std::to_string(o.dropout));
    }
    s.scale = o.scale;
    s.left = o.left < 0 ? kAttentionUnlimited : o.left;
    s.right = o.right < 0 ? kAttentionUnlimited : o.right;
    s.top_left = o.top_left;
    s.softcap = o.softcap;
    s.dropout = o.dropout;
  }

  void fill_bias(const Tensor& bias) {
    AttentionScores& s = p.scores;
    const int64_t full[] = {p.B, p.H, p.T, p.S};
    check_rank(op_, "bias", bias, 4, "that broadcasts to [B, H, T, S]");
    for (int i = 0; i < 4; i++) {
      if (bias.size(i) != 1 && bias.size(i) != full[i]) {
        fail(op_, "bias", "a shape that broadcasts to " + to_string(shape(full)),
             to_string(bias.sizes()));
      }
    }
    check_same_device(op_, "bias", bias, "q", q_);
    if (bias.scalar_type() == ScalarType::Bool) {
      s.bias_kind = AttentionBias::mask;
    } else if (bias.scalar_type() == wide_type(p.dtype)) {
      s.bias_kind = AttentionBias::wide;
    } else if (bias.scalar_type() == q_.scalar_type()) {
      s.bias_kind = AttentionBias::same;
    } else {
      fail(op_, "bias",
           "dtype bool, " + dtype_name(wide_type(p.dtype)) +
               (p.dtype == DType::f64 ? "" : " or that of q, " + dtype_name(q_.scalar_type())),
           dtype_name(bias.scalar_type()));
    }
    const Tensor& b = keep(bias);
    s.bias = b.const_data_ptr();
    const auto stride = [&](int i) { return b.size(i) == 1 ? 0 : b.stride(i); };
    s.bias_batch = stride(0);
    s.bias_head = stride(1);
    s.bias_row = stride(2);
    s.bias_key = stride(3);
  }

  void fill_layout(const AttentionOptions& o) {
    AttentionLayout& l = p.layout;
    const int64_t n = o.q_starts ? o.q_starts->size(0) : o.k_starts ? o.k_starts->size(0) : 0;
    const int64_t starts[] = {n}, used[] = {n > 0 ? n - 1 : q_.size(0)};
    const auto lengths = [&](const char* name, const Optional& t, Sizes sizes, const char* why) {
      if (!t) return static_cast<const int32_t*>(nullptr);
      return static_cast<const int32_t*>(integers(name, *t, sizes, why, ScalarType::Int, "int32"));
    };
    l.q_starts = lengths("cu_seqlens_q", o.q_starts, shape(starts), "[N + 1]");
    l.k_starts = lengths("cu_seqlens_k", o.k_starts, shape(starts), "[N + 1]");
    l.q_used = lengths("seqused_q", o.q_used, shape(used), "[N]");
    l.k_used = lengths("seqused_k", o.k_used, shape(used), "[N]");
  }

  const void* integers(const char* name, const Tensor& t, Sizes sizes, const char* why,
                       ScalarType type, const char* type_name) {
    check_shape(op_, name, t, sizes, why);
    if (t.scalar_type() != type) {
      fail(op_, name, "dtype " + std::string(type_name), dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "q", q_);
    return keep(torch::stable::contiguous(t)).const_data_ptr();
  }
  const void* numbers(const char* name, const Tensor& t, Sizes sizes, const char* why) {
    check_shape(op_, name, t, sizes, why);
    check_dtype(name, t, wide_type(p.dtype));
    return keep(torch::stable::contiguous(t)).const_data_ptr();
  }

  const char* op_;
  const Tensor& q_;
  std::vector<Tensor> kept_;
};

}  // namespace
}  // namespace suffuse
