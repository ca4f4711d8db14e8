// What the self-tests of sm_90a share. They are like selftest.cpp, but "expects" is a regular
// expression: some findings depend on when a copy lands. test_selftest_hopper.py reads them.
#pragma once

#include <cstring>

#include "cuda/host/make_tensor_map.h"
#include "cuda/operand_tile.cuh"
#include "cuda/vocab.cuh"

#define SELFTEST extern "C" __attribute__((visibility("default")))
#define CASE(name, threads) {#name, name, threads}

namespace {

using namespace suffuse;
using namespace suffuse::gpu;

using Tile = OperandTile<bfloat16, Major::k, 64, 64>;

struct Scratch {
  Tile a, b;
  float x[256];
  uint64_t barriers[2];
};

// Matrices of 128 x 128 bfloat16, boxes of 64 x 64. `in` is initialised, `out` is not; `beyond`
// claims twice the rows that `in` has.
struct Memory {
  TensorMap in, out, beyond;
  bfloat16* out_data;
  float* results;  // 256, not initialised
};

SUFFUSE_DEVICE void begin(Scratch& s, int count) {
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barriers[0], count);
    mbarrier_init(&s.barriers[1], count);
    fence_mbarrier_init();
  }
  __syncthreads();
}

// By one thread.
SUFFUSE_DEVICE void load_tile(Tile& tile, const TensorMap& map, uint64_t* barrier) {
  mbarrier_arrive_expect(barrier, Tile::kBytes);
  tile.load(map, barrier, 0, 0);
}

SUFFUSE_DEVICE void fill(Tile& tile) {
  for (unsigned i = threadIdx.x; i < Tile::kBytes / 4; i += blockDim.x) {
    store_vector(tile.bytes + 4 * i, 0x3f803f80u);
  }
}

// Both tiles filled and visible to everything.
SUFFUSE_DEVICE void begin_product(Scratch& s) {
  fill(s.a);
  fill(s.b);
  fence_async();
  __syncthreads();
}

SUFFUSE_DEVICE void product(Scratch& s, float (&d)[32], bool accumulate) {
  multiply_tiles(d, s.a, 0, s.b, accumulate);
}

struct Case {
  const char* name;
  void (*kernel)(Memory);
  unsigned threads;
};

template <int kCount>
void run_case(const Case (&cases)[kCount], const char* name, void* in, void* out, float* results) {
  const auto map = [](void* data, int64_t rows) {
    return make_tensor_map(
        matrix_layout(data, TensorElement::bf16, rows, 128, 256, 64, 64, Swizzle::bytes128));
  };
  for (const Case& c : cases) {
    if (std::strcmp(c.name, name)) continue;
    const Memory m{map(in, 128), map(out, 128), map(in, 256), static_cast<bfloat16*>(out), results};
    emulator::launch(c.name, c.kernel, dim3(1), dim3(c.threads), sizeof(Scratch), m);
  }
}

}  // namespace
