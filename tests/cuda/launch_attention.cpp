// Every way that attention is launched: all dtypes and head dims, with and without features,
// forward, backward, decoding and writing to a cache, a gradient of the bias that is a sum and one
// that is none, no rows and many.
#include <cstdlib>

#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/launch_backward.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

struct Sizes {
  int64_t B, T, S, H, G;
};

AttentionParams make(DType dtype, int64_t head_dim, const Sizes& sizes) {
  AttentionParams p{};
  p.dtype = dtype;
  p.B = sizes.B;
  p.T = sizes.T;
  p.S = sizes.S;
  p.H = sizes.H;
  p.G = sizes.G;
  p.D = p.Dv = head_dim;
  p.lse_head = sizes.T;
  p.lse_batch = sizes.H * sizes.T;
  p.scores.scale = 0.125;
  p.scores.left = p.scores.right = kAttentionUnlimited;
  return p;
}

// Tensors without gaps, which TMA takes: on sm_90 other kernels may run.
AttentionParams contiguous(AttentionParams p) {
  const auto fill = [](AttentionTensor& t, int64_t rows, int64_t heads, int64_t columns) {
    t.head = columns;
    t.row = heads * columns;
    t.batch = rows * t.row;
  };
  fill(p.q, p.T, p.H, p.D);
  fill(p.k, p.S, p.G, p.D);
  fill(p.v, p.S, p.G, p.Dv);
  fill(p.out, p.T, p.H, p.Dv);
  return p;
}

void launch_backward(const AttentionParams& p, bool tf32) {
  float element = 0;
  AttentionGradParams g{};
  g.forward = p;
  attention_bwd_cuda(g, nullptr, tf32);
  g.forward.scores.softcap = 30;
  attention_bwd_cuda(g, nullptr, tf32);
  g.forward.scores.bias_kind = AttentionBias::wide;
  g.grad_bias = &element;  // shared by all
  attention_bwd_cuda(g, nullptr, tf32);
  g.grad_bias_batch = g.grad_bias_head = g.grad_bias_row = g.grad_bias_key = 1;
  attention_bwd_cuda(g, nullptr, tf32);
}

void launch_forward(AttentionParams p, bool tf32) {
  attention_fwd_cuda(p, nullptr, tf32);
  p.scores.softcap = 30;
  attention_fwd_cuda(p, nullptr, tf32);
}

void launch_decode(const AttentionParams& p) {
  float element = 0;
  for (int64_t splits : {0, 1, 7}) {
    if (attention_decode_cuda_floats(p, splits) >= 0) {
      attention_decode_cuda(p, splits, &element, nullptr);
    }
  }
}

// Words of 16, 8 and 4 bytes and of one element; values wider than keys.
void launch_append(DType dtype, int64_t D, int64_t Dv, const Sizes& sizes) {
  AttentionAppendParams p{};
  p.dtype = dtype;
  p.B = sizes.B;
  p.T = sizes.T;
  p.G = sizes.G;
  p.D = D;
  p.Dv = Dv;
  attention_append_cuda(p, nullptr);
}

void launch_each(const AttentionParams& p, bool tf32) {
  launch_forward(p, tf32);
  launch_backward(p, tf32);
}

void launch_all() {
  constexpr Sizes kAll[] = {
      {2, 1000, 777, 6, 2},  {1, 1, 1, 1, 1}, {2, 0, 5, 2, 1},         {2, 5, 0, 2, 1},
      {0, 5, 5, 2, 1},       {2, 5, 5, 0, 0}, {64, 8192, 8192, 64, 8}, {1, 1 << 20, 1 << 20, 8, 8},
      {1, 1, 1 << 20, 64, 8}};
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int64_t head_dim : {8, 32, 61, 64, 96, 128, 192, 256}) {
      for (const Sizes& sizes : kAll) {
        launch_each(make(dtype, head_dim, sizes), false);
        launch_forward(contiguous(make(dtype, head_dim, sizes)), false);
        if (dtype == DType::f32) launch_each(make(dtype, head_dim, sizes), true);
        launch_decode(make(dtype, head_dim, sizes));
        launch_append(dtype, head_dim, head_dim, sizes);
        launch_append(dtype, head_dim, head_dim + 2, sizes);
        launch_append(dtype, head_dim + 4, head_dim, sizes);
      }
    }
  }
}

}  // namespace
}  // namespace suffuse

// Argument: the compute capability, such as 80.
int main(int, char** arguments) {
  recording::set_compute_capability(std::atoi(arguments[1]));
  suffuse::launch_all();
  recording::print();
}
