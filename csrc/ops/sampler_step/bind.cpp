// sampler_step's meeting point with torch: checks, outputs, params. Compiled once for the CPU and
// once for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "ops/sampler_step/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/sampler_step/cuda/launch.h"
#else
#include <unistd.h>

#include "ops/sampler_step/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;
using Column = SamplerStepColumn;

constexpr char kOp[] = "sampler_step";
constexpr const char* kModelNames[] = {"model_outputs[0]", "model_outputs[1]", "model_outputs[2]",
                                       "model_outputs[3]"};
constexpr const char* kHistoryNames[] = {"history[0]", "history[1]", "history[2]", "history[3]"};
constexpr const char* kColumnNames[] = {
    "x",           "model",        "data",         "history[0]",   "history[1]",  "history[2]",
    "history[3]",  "anchor",       "extra",        "noise",        "data_from_x", "data_from_model",
    "clip",        "converted[0]", "converted[1]", "converted[2]", "next_scale",  "guidance[0]",
    "guidance[1]", "guidance[2]",  "guidance[3]"};

struct Arguments {
  const Tensor& x;
  const std::vector<Tensor>& model_outputs;
  const Tensor& coefficients;
  const std::vector<Tensor>& history;
  const std::optional<Tensor>&anchor, &extra, &noise;
  std::optional<int64_t> seed;
  int64_t offset;
  std::optional<double> quantile;
  double maximum;
};

// Fills params from checked arguments; keeps the copies of operands that had to be made.
class Call {
 public:
  explicit Call(const Arguments& a) : a_(a) {
    check_options();
    set_shape();
    set_operands();
    set_coefficients();
    // One run over all elements where nothing differs from sample to sample.
    if (all_contiguous_ && p.coefficient_stride == 0 && !a_.quantile) {
      p.elements *= p.batch;
      p.batch = 1;
    }
  }

  SamplerStepParams p{};

 private:
  void check_options() const {
    const size_t models = a_.model_outputs.size(), history = a_.history.size();
    if (models < 1 || models > SamplerStepParams::kMaxModels) {
      fail(kOp, "model_outputs", "1 to 4 tensors", std::to_string(models));
    }
    if (history > 4) fail(kOp, "history", "at most 4 tensors", std::to_string(history));
    if (a_.noise && a_.seed) fail(kOp, "noise", "a tensor or a seed", "both");
    if (a_.seed && *a_.seed < 0) fail(kOp, "seed", "0 <= seed", std::to_string(*a_.seed));
    if (a_.offset < 0) fail(kOp, "offset", "0 <= offset", std::to_string(a_.offset));
    if (a_.quantile && !(*a_.quantile >= 0 && *a_.quantile <= 1)) {
      fail(kOp, "threshold quantile", "0 <= quantile <= 1", std::to_string(*a_.quantile));
    }
    if (!(a_.maximum >= 1)) {
      fail(kOp, "threshold maximum", "maximum >= 1", std::to_string(a_.maximum));
    }
  }

  void set_shape() {
    const Sizes sizes = a_.x.sizes();
    p.batch = sizes.size() ? sizes[0] : 1;
    p.elements = 1;
    for (size_t i = 1; i < sizes.size(); i++) p.elements *= sizes[i];
    p.x_type = dtype_of(kOp, "x", a_.x);
    p.philox = a_.seed.has_value();
    p.seed = static_cast<uint64_t>(a_.seed.value_or(0));
    p.offset = static_cast<uint64_t>(a_.offset);
    p.quantile = a_.quantile.value_or(0);
    p.maximum = a_.maximum;
  }

  void set_operands() {
    p.x = view(a_.x);
    p.model_type = dtype_of(kOp, kModelNames[0], a_.model_outputs[0]);
    if ((p.x_type == DType::f64) != (p.model_type == DType::f64)) {
      fail(kOp, kModelNames[0], "float64 with a float64 x, another dtype with another",
           dtype_name(a_.model_outputs[0].scalar_type()));
    }
    for (const Tensor& output : a_.model_outputs) {
      const char* name = kModelNames[p.model_count];
      check_same_dtype(kOp, name, output, kModelNames[0], a_.model_outputs[0]);
      p.models[p.model_count++] = operand(name, output);
    }
    for (size_t i = 0; i < a_.history.size(); i++) {
      add_term(kHistoryNames[i], Column::history + static_cast<int>(i), a_.history[i]);
    }
    if (a_.anchor) add_term("anchor", Column::anchor, *a_.anchor);
    if (a_.extra) add_term("extra", Column::extra, *a_.extra);
    if (a_.noise) add_term("noise", Column::noise, *a_.noise);
  }

  void add_term(const char* name, int column, const Tensor& t) {
    check_same_dtype(kOp, name, t, "x", a_.x);
    p.term_columns[p.term_count] = column;
    p.terms[p.term_count++] = operand(name, t);
  }

  SampleView operand(const char* name, const Tensor& t) {
    check_shape(kOp, name, t, a_.x.sizes(), "like x");
    check_same_device(kOp, name, t, "x", a_.x);
    return view(t);
  }

  SampleView view(const Tensor& t) {
    const SampleView view = sample_view(t, p.elements, copies_);
    all_contiguous_ = all_contiguous_ && view.batch_stride == p.elements;
    return view;
  }

  void set_coefficients() {
    const Tensor& table = a_.coefficients;
    p.coefficient_type = dtype_of(kOp, "coefficients", table);
    if (p.coefficient_type != DType::f32 && p.coefficient_type != DType::f64) {
      fail(kOp, "coefficients", "dtype float32 or float64", dtype_name(table.scalar_type()));
    }
    const Sizes sizes = table.sizes();
    const bool shared = sizes.size() == 1 && sizes[0] == Column::count;
    const bool per_sample =
        a_.x.dim() > 0 && sizes.size() == 2 && sizes[0] == p.batch && sizes[1] == Column::count;
    if (!shared && !per_sample) {
      fail(kOp, "coefficients",
           "shape (21,) or (" + std::to_string(p.batch) + ", 21), one row per sample of x",
           to_string(sizes));
    }
    check_same_device(kOp, "coefficients", table, "x", a_.x);
    const Sizes strides = table.strides();
    const bool rows_dense = strides[strides.size() - 1] == 1;
    if (!rows_dense) copies_.push_back(torch::stable::contiguous(table));
    p.coefficients = (rows_dense ? table : copies_.back()).const_data_ptr();
    p.coefficient_stride = shared ? 0 : rows_dense ? strides[0] : Column::count;
    if (table.is_cpu()) {
      if (p.coefficient_type == DType::f32) {
        check_values<float>(shared ? 1 : p.batch);
      } else {
        check_values<double>(shared ? 1 : p.batch);
      }
    }
  }

  template <class T>
  void check_values(int64_t rows) const {
    const T* row = static_cast<const T*>(p.coefficients);
    const uint32_t missing = missing_operands();
    for (int64_t i = 0; i < rows; i++, row += p.coefficient_stride) {
      for (int k = 0; k < Column::count; k++) {
        const double value = static_cast<double>(row[k]);
        const bool good = k == Column::clip ? value >= 0 : std::isfinite(value);
        if (!good)
          fail_value(k, k == Column::clip ? "a number >= 0 or inf" : "a finite number", value);
        if (value != 0 && (missing >> k & 1)) {
          fail_value(k, "0 because there is no such operand", value);
        }
      }
    }
  }

  [[noreturn]] static void fail_value(int column, const char* expected, double value) {
    fail(kOp, std::string("coefficients ") + kColumnNames[column], expected, std::to_string(value));
  }

  // Bit k: column k weights an operand that was not given.
  uint32_t missing_operands() const {
    uint32_t missing = p.philox ? 0 : 1u << Column::noise;
    for (int k = Column::history; k < Column::noise; k++) missing |= 1u << k;
    for (int k = 0; k < p.term_count; k++) missing &= ~(1u << p.term_columns[k]);
    for (int k = p.model_count; k < SamplerStepParams::kMaxModels; k++) {
      missing |= 1u << (Column::guidance + k);
    }
    return missing;
  }

  const Arguments& a_;
  std::vector<Tensor> copies_;
  bool all_contiguous_ = true;
};

DType next_type_of(ScalarType type, DType x_type) {
  const bool fits =
      x_type == DType::f64
          ? type == ScalarType::Double
          : type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
  if (!fits) {
    fail(kOp, "next_input",
         x_type == DType::f64 ? "dtype float64 with a float64 x"
                              : "dtype float32, bfloat16 or float16",
         dtype_name(type));
  }
  return type == ScalarType::Double     ? DType::f64
         : type == ScalarType::Float    ? DType::f32
         : type == ScalarType::BFloat16 ? DType::bf16
                                        : DType::f16;
}

#if defined(SUFFUSE_CUDA)

void run(SamplerStepParams& p, const Tensor& x, bool threshold) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const ScalarType wide = p.x_type == DType::f64 ? ScalarType::Double : ScalarType::Float;
  const int64_t samples[] = {threshold ? p.batch : 0};
  Tensor scales = empty(x, Sizes(samples, 1), wide);
  if (threshold) p.scales = scales.mutable_data_ptr();
  const auto stream = torch::stable::accelerator::getCurrentStream(x.get_device_index());
  sampler_step_cuda(p, stream.nativeHandle());
}

#else

int64_t cache_bytes(int name, int64_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

// Results larger than this leave no room in the cache for what comes next. A share of the last
// level, which all cores use, where that is more than half of the second: measured, plain stores
// win up to there.
int64_t streaming_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t second = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 1 << 20) / 2;
  static const int64_t third = cache_bytes(_SC_LEVEL3_CACHE_SIZE, 0) / 8;
  return second > third ? second : third;
#else
  return 1 << 19;
#endif
}

// Results that will not stay in the cache are written around it, if whole vectors of them can be;
// but not into fresh pages, which are in the cache already.
bool worth_streaming(const SamplerStepParams& p) {
  const int64_t elements = p.batch * p.elements;
  const int64_t each = elements * sizeof_dtype(p.x_type);
  const int64_t next = p.next_input ? elements * sizeof_dtype(p.next_type) : 0;
  const int64_t total = each + (p.converted ? each : 0) + next;
  const uintptr_t all = reinterpret_cast<uintptr_t>(p.sample) |
                        reinterpret_cast<uintptr_t>(p.converted) |
                        reinterpret_cast<uintptr_t>(p.next_input);
  return total > streaming_bytes() && each < kFreshBytes && all % 64 == 0;
}

void run(SamplerStepParams& p, const Tensor& x, bool threshold) {
  p.stream = worth_streaming(p);
  const int64_t units = p.batch * sampler_step_chunks(p);
  const int64_t unit = p.elements < kSamplerStepChunk ? p.elements : kSamplerStepChunk;
  const int64_t grain = (p.philox ? 8192 : 32768) / unit + 1;
  std::optional<Tensor> scales, magnitudes;
  if (threshold) {
    const ScalarType wide = p.x_type == DType::f64 ? ScalarType::Double : ScalarType::Float;
    const int64_t samples[] = {p.batch}, all[] = {p.batch * p.elements};
    scales = empty(x, Sizes(samples, 1), wide);
    magnitudes = empty(x, Sizes(all, 1), wide);
    p.magnitudes = magnitudes->mutable_data_ptr();
    void* result = scales->mutable_data_ptr();
    torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
      sampler_step_magnitudes(p, begin, end);
    });
    p.scales = result;
    torch::stable::parallel_for(
        0, p.batch, 1, [&](int64_t begin, int64_t end) { sampler_step_scales(p, begin, end); });
  }
  torch::stable::parallel_for(
      0, units, grain, [&](int64_t begin, int64_t end) { sampler_step_range(p, begin, end); });
}

#endif

std::tuple<Tensor, Tensor, Tensor> sampler_step(
    Tensor x, std::vector<Tensor> model_outputs, Tensor coefficients, std::vector<Tensor> history,
    bool converted, std::optional<ScalarType> next_input, std::optional<Tensor> anchor,
    std::optional<Tensor> extra, std::optional<Tensor> noise, std::optional<int64_t> seed,
    int64_t offset, std::optional<double> quantile, double maximum) {
  const Arguments arguments{x,     model_outputs, coefficients, history,  anchor, extra,
                            noise, seed,          offset,       quantile, maximum};
  Call call(arguments);
  SamplerStepParams& p = call.p;
  if (next_input) p.next_type = next_type_of(*next_input, p.x_type);
  const Sizes sizes = x.sizes();
  const ScalarType type = x.scalar_type();
  Tensor sample = empty(x, sizes, type);
  // What is not asked for is undefined, None to Python: 0.2 us cheaper than an empty tensor.
  Tensor other = converted ? empty(x, sizes, type) : Tensor();
  Tensor following = next_input ? empty(x, sizes, *next_input) : Tensor();
  p.sample = sample.mutable_data_ptr();
  if (converted) p.converted = other.mutable_data_ptr();
  if (next_input) p.next_input = following.mutable_data_ptr();
  if (p.batch * p.elements > 0) run(p, x, quantile.has_value());
  return {sample, other, following};
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("sampler_step", TORCH_BOX(&suffuse::sampler_step));
}
