// Launches the CUDA kernel that writes to a cache of keys and values.
#include "cuda/launcher.cuh"
#include "ops/attention/cuda/append.cuh"
#include "ops/attention/cuda/launch.h"

namespace suffuse {
namespace {

void check_size(const char* argument, const char* expected, int64_t got) {
  if (got <= INT32_MAX) return;
  throw Error(std::string("attention_append: ") + argument + ": expected at most 2147483647 " +
              expected + " on CUDA, got " + std::to_string(got));
}

}  // namespace

void attention_append_cuda(const AttentionAppendParams& p, void* stream) {
  check_size("k", "rows", p.B * p.T);
  check_size("k", "elements of a row", p.G * p.D);
  check_size("v", "elements of a row", p.G * p.Dv);
  attention_append_pass(p, Launcher("attention_append", stream));
}

}  // namespace suffuse
