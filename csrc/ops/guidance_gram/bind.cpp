// guidance_gram's meeting point with torch: checks, outputs, params. Compiled once for the CPU and
// once for CUDA.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

#include "ops/guidance_gram/params.h"
#include "torch/checks.h"
#include "torch/empty.h"

#if defined(SUFFUSE_CUDA)
#include <torch/csrc/stable/accelerator.h>

#include "ops/guidance_gram/cuda/launch.h"
#else
#include "ops/guidance_gram/cpu/kernel.h"
#endif

namespace suffuse {
namespace {

using torch::headeronly::ScalarType;

constexpr char kOp[] = "guidance_gram";
constexpr const char* kNames[] = {"tensors[0]", "tensors[1]", "tensors[2]", "tensors[3]"};

// Fills params from checked arguments. copies: keeps what had to be copied.
GuidanceGramParams params_of(const std::vector<Tensor>& tensors, bool center,
                             std::vector<Tensor>& copies) {
  if (tensors.empty() || tensors.size() > GuidanceGramParams::kMaxTensors) {
    fail(kOp, "tensors", "1 to 4 tensors", std::to_string(tensors.size()));
  }
  const Tensor& first = tensors[0];
  const Sizes sizes = first.sizes();
  if (sizes.size() == 0) fail(kOp, kNames[0], "shape [B, ...]", to_string(sizes));
  GuidanceGramParams p{};
  p.type = dtype_of(kOp, kNames[0], first);
  p.batch = sizes[0];
  p.elements = 1;
  for (size_t i = 1; i < sizes.size(); i++) p.elements *= sizes[i];
  for (const Tensor& t : tensors) {
    const char* name = kNames[p.count];
    check_same_dtype(kOp, name, t, kNames[0], first);
    check_shape(kOp, name, t, sizes, "like tensors[0]");
    check_same_device(kOp, name, t, kNames[0], first);
    p.tensors[p.count++] = sample_view(t, p.elements, copies);
  }
  p.center = center;
  return p;
}

#if defined(SUFFUSE_CUDA)

void run(GuidanceGramParams& p, const Tensor& like) {
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  p.pieces = guidance_gram_pieces(p);
  const int64_t rows[] = {p.batch * p.pieces * gram_row(p.count)};
  Tensor partials = empty(like, Sizes(rows, 1), ScalarType::Double);
  p.partials = static_cast<double*>(partials.mutable_data_ptr());
  const auto stream = torch::stable::accelerator::getCurrentStream(like.get_device_index());
  guidance_gram_cuda(p, stream.nativeHandle());
}

#else

void finish(const GuidanceGramParams& p, int64_t sample) {
  const int count = p.count, entries = gram_entries(count);
  double totals[GuidanceGramParams::kMaxEntries] = {};
  for (int64_t piece = 0; piece < p.pieces; piece++) {
    const double* row = p.partials + (sample * p.pieces + piece) * gram_row(count);
    for (int k = 0; k < entries; k++) totals[k] += row[k];
  }
  for (int i = 0; i < count; i++) {
    for (int j = 0; j < count; j++) {
      p.gram[(sample * count + i) * count + j] = gram_entry(p, totals, i, j);
    }
    p.means[sample * count + i] = gram_mean(p, totals, i);
  }
}

void run(GuidanceGramParams& p, const Tensor& like) {
  p.pieces = (p.elements + kGuidanceGramPiece - 1) / kGuidanceGramPiece;
  const int64_t rows = p.batch * p.pieces, size[] = {rows * gram_row(p.count)};
  Tensor partials = empty(like, Sizes(size, 1), ScalarType::Double);
  p.partials = static_cast<double*>(partials.mutable_data_ptr());
  const int64_t unit = p.elements < kGuidanceGramPiece ? p.elements + 1 : kGuidanceGramPiece;
  torch::stable::parallel_for(0, rows, 32768 / unit + 1, [&](int64_t begin, int64_t end) {
    guidance_gram_rows(p, begin, end);
  });
  for (int64_t sample = 0; sample < p.batch; sample++) finish(p, sample);
}

#endif

std::tuple<Tensor, Tensor> guidance_gram(std::vector<Tensor> tensors, bool center) {
  std::vector<Tensor> copies;
  GuidanceGramParams p = params_of(tensors, center, copies);
  const int64_t sizes[] = {p.batch, p.count, p.count};
  Tensor gram = empty(tensors[0], Sizes(sizes, 3), ScalarType::Double);
  Tensor means = empty(tensors[0], Sizes(sizes, 2), ScalarType::Double);
  p.gram = static_cast<double*>(gram.mutable_data_ptr());
  p.means = static_cast<double*>(means.mutable_data_ptr());
  if (p.batch > 0) run(p, tensors[0]);
  return {gram, means};
}

}  // namespace
}  // namespace suffuse

#if defined(SUFFUSE_CUDA)
STABLE_TORCH_LIBRARY_IMPL(suffuse, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(suffuse, CPU, m) {
#endif
  m.impl("guidance_gram", TORCH_BOX(&suffuse::guidance_gram));
}
