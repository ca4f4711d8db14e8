// Chooses the CUDA kernels of attention's forward.
#include <cuda_runtime_api.h>

#include <string>

#include "common/error.h"
#include "ops/attention/cuda/config_sm90.h"
#include "ops/attention/cuda/decode_config.h"
#include "ops/attention/cuda/launch.h"
#include "ops/attention/decode.h"

namespace suffuse {
namespace {

void check_sizes(const AttentionParams& p) {
  constexpr int64_t kPositions = int64_t{1} << 28;
  const auto refuse = [](const char* argument, const char* expected, int64_t got) {
    throw Error(std::string("attention: ") + argument + ": expected " + expected +
                " on CUDA, got " + std::to_string(got));
  };
  if (attention_head(p) == 0) {
    refuse(p.D > p.Dv ? "q" : "v", "a head dim of at most 256", p.D > p.Dv ? p.D : p.Dv);
  }
  if (p.T >= kPositions) refuse("q", "fewer than 2^28 queries of a sequence", p.T);
  if (p.S >= kPositions) refuse("k", "fewer than 2^28 keys of a sequence", p.S);
}

bool is_empty(const AttentionParams& p) { return p.B * p.T * p.H == 0; }

// Of the current device: 90 for 9.0.
int compute_capability() {
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  }
  if (error != cudaSuccess) {
    throw Error(std::string("attention: the device's compute capability: ") +
                cudaGetErrorString(error));
  }
  return 10 * major + minor;
}

// Whether the kernels of sm_90a took the call.
bool run_on_sm90(const AttentionParams& p, void* stream) {
  const auto run =
      p.dtype == DType::bf16 ? attention_fwd_cuda_sm90_bf16 : attention_fwd_cuda_sm90_f16;
  if (run == nullptr) return false;
  const int head = attention_sm90_head(p, compute_capability());
  if (head == 0) return false;
  run(p, head, stream);
  return true;
}

AttentionDecodeParams decode_params(const AttentionParams& p, int64_t splits) {
  AttentionDecodeParams d{};
  d.forward = p;
  attention_cut_keys(d, splits);
  return d;
}

}  // namespace

int64_t attention_decode_cuda_floats(const AttentionParams& p, int64_t splits) {
  if (is_empty(p) || !attention_is_decode(p)) return 0;
  return attention_decode_floats(decode_params(p, splits));
}

void attention_decode_cuda(const AttentionParams& p, int64_t splits, void* workspace, void* stream,
                           bool tf32) {
  if (is_empty(p)) return;
  if (!attention_is_decode(p)) return attention_fwd_cuda(p, stream, tf32);
  check_sizes(p);
  if (p.dtype == DType::f64) {
    throw Error("attention_decode: q: expected another dtype than float64 on CUDA, got float64");
  }
  AttentionDecodeParams d = decode_params(p, splits);
  d.workspace = workspace;
  attention_decode_cuda_chunks(d, stream);
}

void attention_fwd_cuda(const AttentionParams& p, void* stream, bool tf32) {
  check_sizes(p);
  switch (p.dtype) {
    case DType::bf16:
      return run_on_sm90(p, stream) ? void() : attention_fwd_cuda_bf16(p, stream);
    case DType::f16:
      return run_on_sm90(p, stream) ? void() : attention_fwd_cuda_f16(p, stream);
    case DType::f32:
      return tf32 ? attention_fwd_cuda_tf32(p, stream) : attention_fwd_cuda_f32(p, stream);
    case DType::f64:
      throw Error("attention: q: expected another dtype than float64 on CUDA, got float64");
  }
}

}  // namespace suffuse
