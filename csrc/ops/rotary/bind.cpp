// rotary's meeting point with torch: checks, outputs, params. Compiled once for the CPU and once
// for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "ops/rotary/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/rotary/cuda/launch.h"
#else
#include "ops/rotary/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

bool columns_adjacent(const Tensor& t) {
  return t.stride(t.dim() - 1) == 1 || t.size(t.dim() - 1) <= 1;
}

// The arguments of one call, checked; what had to be copied lives as long as this.
class Call {
 public:
  Call(const char* op, const Tensor& x) : op_(op), x_(x) {
    check_rank(op, "x", x, 4, "[B, T, H, D]");
    p.dtype = dtype_of(op, "x", x);
    p.batch = x.size(0);
    p.length = x.size(1);
    p.heads = x.size(2);
    p.columns = x.size(3);
  }

  void tables(const Tensor& cos, const Tensor& sin) {
    const bool own = cos.dim() == 3;  // each batch entry has its own
    if (!own) check_rank(op_, "cos", cos, 2, "[S, R/2] or [B, S, R/2]");
    check_shape(op_, "sin", sin, cos.sizes(), "like cos");
    if (own && cos.size(0) != p.batch && cos.size(0) != 1) {
      fail(op_, "cos", "[B, S, R/2] with B = " + std::to_string(p.batch), to_string(cos.sizes()));
    }
    p.positions = cos.size(own ? 1 : 0);
    p.rotated = 2 * cos.size(own ? 2 : 1);
    if (p.rotated > p.columns) {
      fail(op_, "cos", "R/2 of at most " + std::to_string(p.columns / 2) + ", half of D",
           std::to_string(p.rotated / 2));
    }
    p.table_dtype = dtype_of(op_, "cos", cos);
    if (p.table_dtype != p.dtype && (p.table_dtype != DType::f32 || p.dtype == DType::f64)) {
      const bool half = p.dtype != DType::f64 && p.dtype != DType::f32;
      fail(op_, "cos", "dtype " + dtype_name(x_.scalar_type()) + (half ? " or float32" : ""),
           dtype_name(cos.scalar_type()));
    }
    check_same_dtype(op_, "sin", sin, "cos", cos);
    check_same_device(op_, "cos", cos, "x", x_);
    check_same_device(op_, "sin", sin, "x", x_);
    const bool as_they_are =
        columns_adjacent(cos) && columns_adjacent(sin) && same_strides(cos, sin);
    kept_.push_back(as_they_are ? cos : torch::stable::contiguous(cos));
    const Tensor& c = kept_.back();
    p.cos = c.const_data_ptr();
    p.table_row = c.stride(own ? 1 : 0);
    p.table_batch = own && c.size(0) > 1 ? c.stride(0) : 0;
    kept_.push_back(as_they_are ? sin : torch::stable::contiguous(sin));
    p.sin = kept_.back().const_data_ptr();
    own_tables_ = own;
  }

  void places(const Optional& offsets, const Optional& cu_seqlens, int64_t offset) {
    p.offset = offset;
    int64_t entries = p.batch;
    if (cu_seqlens) {
      if (p.batch != 1) {
        fail(op_, "x", "shape [1, total, H, D] with cu_seqlens", to_string(x_.sizes()));
      }
      if (own_tables_) fail(op_, "cos", "shape [S, R/2] with cu_seqlens", "three dimensions");
      check_rank(op_, "cu_seqlens", *cu_seqlens, 1, "[N + 1]");
      entries = cu_seqlens->size(0) - 1;
      if (entries < 1) {
        fail(op_, "cu_seqlens", "one sequence or more in [N + 1]", to_string(cu_seqlens->sizes()));
      }
      p.sequences = integers("cu_seqlens", *cu_seqlens);
      p.sequence_count = entries;
    }
    if (offsets) {
      const int64_t sizes[] = {entries};
      check_shape(op_, "offsets", *offsets, Sizes(sizes, 1), cu_seqlens ? "[N]" : "[B]");
      p.offsets = integers("offsets", *offsets);
    }
    check_positions();
  }

  RotaryRows rows(const Tensor& t) {
    kept_.push_back(columns_adjacent(t) ? t : torch::stable::contiguous(t));
    return rows_of(kept_.back());
  }
  static RotaryRows rows_of(const Tensor& t) {
    return {const_cast<void*>(t.const_data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
  }

  RotaryParams p{};

 private:
  static bool same_strides(const Tensor& a, const Tensor& b) {
    for (int64_t i = 0; i < a.dim(); i++) {
      if (a.stride(i) != b.stride(i)) return false;
    }
    return true;
  }

  const int32_t* integers(const char* name, const Tensor& t) {
    if (t.scalar_type() != ScalarType::Int) {
      fail(op_, name, "dtype int32", dtype_name(t.scalar_type()));
    }
    check_same_device(op_, name, t, "x", x_);
    kept_.push_back(torch::stable::contiguous(t));
    return static_cast<const int32_t*>(kept_.back().const_data_ptr());
  }

  void check_range(int64_t offset, int64_t length) const {
    if (length == 0 || p.rotated == 0) return;
    if (offset < 0 || offset + length > p.positions) {
      fail(op_, "offsets", "positions within the " + std::to_string(p.positions) + " of the tables",
           std::to_string(offset) + " to " + std::to_string(offset + length - 1));
    }
  }

  // What the host can see: everything on the CPU, numbers that are no tensors on CUDA.
  void check_positions() const {
    const bool readable = x_.is_cpu();
    if (!p.sequences) {
      for (int64_t b = 0; p.offsets && readable && b < p.batch; b++) {
        check_range(p.offsets[b], p.length);
      }
      if (!p.offsets && p.batch > 0) check_range(p.offset, p.length);
      return;
    }
    for (int64_t i = 0; readable && i < p.sequence_count; i++) {
      const int64_t length = p.sequences[i + 1] - p.sequences[i];
      if (length < 0) {
        fail(op_, "cu_seqlens", "numbers that do not decrease",
             std::to_string(p.sequences[i + 1]) + " behind " + std::to_string(p.sequences[i]));
      }
      check_range(p.offsets ? p.offsets[i] : p.offset, length);
    }
    if (readable && (p.sequences[0] != 0 || p.sequences[p.sequence_count] != p.length)) {
      fail(op_, "cu_seqlens", "0 to " + std::to_string(p.length),
           std::to_string(p.sequences[0]) + " to " + std::to_string(p.sequences[p.sequence_count]));
    }
  }

  const char* op_;
  const Tensor& x_;
  bool own_tables_ = false;
  std::vector<Tensor> kept_;
};

#if defined(SUFFUSE_CUDA)

void run(const RotaryParams& p, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto stream = torch::stable::accelerator::getCurrentStream(x.get_device_index());
  rotary_cuda(p, stream.nativeHandle());
}

#else

void run(const RotaryParams& p, const Tensor&) {
  torch::stable::parallel_for(0, p.batch * p.length, 32768 / (p.heads * p.columns + 1) + 1,
                              [&](int64_t begin, int64_t end) { rotary_range(p, begin, end); });
}

#endif

Tensor rotary(Tensor x, Tensor cos, Tensor sin, Optional offsets, Optional cu_seqlens,
              int64_t offset, bool interleaved, bool inverse) {
  Call call("rotary", x);
  call.tables(cos, sin);
  call.places(offsets, cu_seqlens, offset);
  RotaryParams& p = call.p;
  p.interleaved = interleaved;
  p.inverse = inverse;
  Tensor out = empty(x, x.sizes(), x.scalar_type());
  p.x = call.rows(x);
  p.out = Call::rows_of(out);
  if (out.numel() > 0) run(p, x);
  return out;
}

void rotary_in_place(Tensor x, Tensor cos, Tensor sin, Optional offsets, Optional cu_seqlens,
                     int64_t offset, bool interleaved, bool inverse) {
  constexpr char kOp[] = "rotary_";
  Call call(kOp, x);
  call.tables(cos, sin);
  call.places(offsets, cu_seqlens, offset);
  if (!columns_adjacent(x)) {
    fail(kOp, "x", "stride 1 of the last dimension", "strides " + to_string(x.strides()));
  }
  for (int64_t i = 0; i < 3; i++) {
    if (x.stride(i) == 0 && x.size(i) > 1) {
      fail(kOp, "x", "memory of its own for every element", "strides " + to_string(x.strides()));
    }
  }
  RotaryParams& p = call.p;
  p.interleaved = interleaved;
  p.inverse = inverse;
  p.x = p.out = Call::rows_of(x);
  p.out.data = x.mutable_data_ptr();
  if (x.numel() > 0) run(p, x);
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("rotary", TORCH_BOX(&suffuse::rotary));
  m.impl("rotary_", TORCH_BOX(&suffuse::rotary_in_place));
}
