// The launches of float attention, products of tf32 or of float: forward and backward without and
// with features, decoding of few queries and of many.
#include <cstdlib>
#include <cstring>

#include "ops/attention/cuda/launch.h"
#include "ops/attention/cuda/launch_backward.h"
#include "recording_runtime.h"

namespace suffuse {
namespace {

void launch_all(bool tf32) {
  float element = 0;
  AttentionParams p{};
  p.dtype = DType::f32;
  p.B = p.G = 1;
  p.H = 2;
  p.T = p.lse_head = 100;
  p.S = 200;
  p.D = p.Dv = 64;
  p.lse_batch = p.H * p.T;
  p.scores.scale = 0.125;
  p.scores.left = p.scores.right = kAttentionUnlimited;
  for (double softcap : {0., 30.}) {
    p.scores.softcap = softcap;
    AttentionGradParams g{};
    g.forward = p;
    attention_fwd_cuda(p, nullptr, tf32);
    attention_bwd_cuda(g, nullptr, tf32);
  }
  p.scores.softcap = 0;
  attention_decode_cuda(p, 0, &element, nullptr, tf32);
  p.T = 2;
  attention_decode_cuda(p, 0, &element, nullptr, tf32);
}

}  // namespace
}  // namespace suffuse

// Arguments: the compute capability, such as 80, and tf32 or float.
int main(int, char** arguments) {
  recording::set_compute_capability(std::atoi(arguments[1]));
  suffuse::launch_all(std::strcmp(arguments[2], "tf32") == 0);
  recording::print();
}
