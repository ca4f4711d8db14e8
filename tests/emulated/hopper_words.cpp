// C entries that run the words of sm_90a alone: one box, one product.
#include "cuda/host/make_tensor_map.h"
#include "cuda/vocab.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

namespace suffuse {
namespace {

using gpu::Major;
using gpu::Swizzle;

// ---- TMA -------------------------------------------------------------------------------------

constexpr int kBoxWords = 16384;

struct BoxShared {
  alignas(1024) uint32_t box[kBoxWords];
  uint64_t barrier;
};

struct BoxParams {
  gpu::TensorMap map;
  int at[4];
  uint32_t* image;  // of the box in shared memory
  int words;
};

template <int kRank>
__global__ void load_box(const __grid_constant__ BoxParams p) {
  auto& s = gpu::shared<BoxShared>();
  if (threadIdx.x == 0) {
    gpu::mbarrier_init(&s.barrier, 1);
    gpu::fence_mbarrier_init();
    gpu::mbarrier_arrive_expect(&s.barrier, 4 * p.words);
    const int* c = p.at;
    if constexpr (kRank == 2) gpu::tensor_load(s.box, p.map, c[0], c[1], &s.barrier);
    if constexpr (kRank == 3) gpu::tensor_load(s.box, p.map, c[0], c[1], c[2], &s.barrier);
    if constexpr (kRank == 4) gpu::tensor_load(s.box, p.map, c[0], c[1], c[2], c[3], &s.barrier);
  }
  __syncthreads();
  gpu::mbarrier_wait(&s.barrier, 0);
  for (int i = threadIdx.x; i < p.words; i += blockDim.x) p.image[i] = s.box[i];
}

template <int kRank>
__global__ void store_box(const __grid_constant__ BoxParams p) {
  auto& s = gpu::shared<BoxShared>();
  for (int i = threadIdx.x; i < p.words; i += blockDim.x) s.box[i] = p.image[i];
  gpu::fence_async();
  __syncthreads();
  if (threadIdx.x > 0) return;
  const int* c = p.at;
  if constexpr (kRank == 2) gpu::tensor_store(p.map, c[0], c[1], s.box);
  if constexpr (kRank == 3) gpu::tensor_store(p.map, c[0], c[1], c[2], s.box);
  if constexpr (kRank == 4) gpu::tensor_store(p.map, c[0], c[1], c[2], c[3], s.box);
  gpu::bulk_commit();
  gpu::bulk_wait_read<0>();
}

// As Python's ctypes has it.
struct BoxCall {
  int64_t element, swizzle, rank, store;
  int64_t sizes[4], strides[3], box[4], at[4];
};

void run_box(const BoxCall& call, void* tensor, void* image) {
  BoxParams p{};
  TensorLayout layout{};
  layout.address = tensor;
  layout.element = static_cast<TensorElement>(call.element);
  layout.swizzle = static_cast<Swizzle>(call.swizzle);
  layout.rank = static_cast<int>(call.rank);
  p.words = tensor_element_bytes(layout.element);
  for (int i = 0; i < layout.rank; i++) {
    layout.sizes[i] = static_cast<uint64_t>(call.sizes[i]);
    layout.box[i] = static_cast<uint32_t>(call.box[i]);
    if (i > 0) layout.strides[i - 1] = static_cast<uint64_t>(call.strides[i - 1]);
    p.at[i] = static_cast<int>(call.at[i]);
    p.words *= static_cast<int>(call.box[i]);
  }
  p.words /= 4;
  p.map = make_tensor_map(layout);
  p.image = static_cast<uint32_t*>(image);
  void (*const kernels[2][3])(BoxParams) = {{load_box<2>, load_box<3>, load_box<4>},
                                            {store_box<2>, store_box<3>, store_box<4>}};
  emulator::launch(call.store ? "store_box" : "load_box", kernels[call.store][call.rank - 2],
                   dim3(1), dim3(64), sizeof(BoxShared), p);
}

// ---- wgmma -----------------------------------------------------------------------------------

constexpr int kImageWords = 16384;

struct ProductShared {
  alignas(1024) uint32_t image[kImageWords];
};

struct OperandPlace {
  int64_t start, swizzle, leading, stride;
};

struct ProductParams {
  OperandPlace a, b;
  const uint32_t *image, *fragments;
  float* d;
};

template <class S, int N, Major kA, Major kB, bool kRegisters>
__global__ void product(const ProductParams p) {
  auto& s = gpu::shared<ProductShared>();
  for (int i = threadIdx.x; i < kImageWords; i += 128) s.image[i] = p.image[i];
  gpu::fence_async();
  __syncthreads();
  const auto descriptor = [&](const OperandPlace& o) {
    return gpu::wgmma_descriptor(s.image + o.start / 4, static_cast<Swizzle>(o.swizzle),
                                 static_cast<int>(o.leading), static_cast<int>(o.stride));
  };
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = p.d[threadIdx.x * (N / 2) + i];
  if constexpr (kRegisters) {
    uint32_t a[4];
    for (int i = 0; i < 4; i++) a[i] = p.fragments[threadIdx.x * 4 + i];
    gpu::wgmma_fence(d, a);
    gpu::wgmma<N, S, kB>(d, a, descriptor(p.b), true);
    gpu::wgmma_commit();
    gpu::wgmma_wait<0>(d, a);
  } else {
    gpu::wgmma_fence(d);
    gpu::wgmma<N, S, kA, kB>(d, descriptor(p.a), descriptor(p.b), true);
    gpu::wgmma_commit();
    gpu::wgmma_wait<0>(d);
  }
  for (int i = 0; i < N / 2; i++) p.d[threadIdx.x * (N / 2) + i] = d[i];
}

template <class S, int N, Major kA, Major kB, bool kRegisters>
void run_product(const ProductParams& p) {
  emulator::launch("product", product<S, N, kA, kB, kRegisters>, dim3(1), dim3(128),
                   sizeof(ProductShared), p);
}

template <class S, int N>
void run_majors(int64_t a_mn, int64_t b_mn, int64_t registers, const ProductParams& p) {
  if constexpr (sizeof(S) == 2) {
    if (registers && b_mn) return run_product<S, N, Major::k, Major::mn, true>(p);
    if (a_mn && b_mn) return run_product<S, N, Major::mn, Major::mn, false>(p);
    if (a_mn) return run_product<S, N, Major::mn, Major::k, false>(p);
    if (b_mn) return run_product<S, N, Major::k, Major::mn, false>(p);
  }
  if (registers) return run_product<S, N, Major::k, Major::k, true>(p);
  run_product<S, N, Major::k, Major::k, false>(p);
}

template <class S>
void run_columns(int64_t n, int64_t a_mn, int64_t b_mn, int64_t registers, const ProductParams& p) {
  if (n == 8) return run_majors<S, 8>(a_mn, b_mn, registers, p);
  if (n == 16) return run_majors<S, 16>(a_mn, b_mn, registers, p);
  if (n == 32) return run_majors<S, 32>(a_mn, b_mn, registers, p);
  if (n == 64) return run_majors<S, 64>(a_mn, b_mn, registers, p);
  if (n == 96) return run_majors<S, 96>(a_mn, b_mn, registers, p);
  if (n == 128) return run_majors<S, 128>(a_mn, b_mn, registers, p);
  if (n == 192) return run_majors<S, 192>(a_mn, b_mn, registers, p);
  if (n == 256) return run_majors<S, 256>(a_mn, b_mn, registers, p);
}

}  // namespace
}  // namespace suffuse

using namespace suffuse;

EMULATED void emulated_box(const BoxCall* call, void* tensor, void* image) {
  run_box(*call, tensor, image);
}

// type: 0 bfloat16, 1 float16, 2 float. image: 64 KiB of shared memory. fragments: A in registers,
// or null. d: the accumulators of 128 threads.
EMULATED void emulated_product(int64_t type, int64_t n, int64_t a_mn, int64_t b_mn,
                               const OperandPlace* a, const OperandPlace* b, const void* image,
                               const void* fragments, void* d) {
  const ProductParams p{*a, *b, static_cast<const uint32_t*>(image),
                        static_cast<const uint32_t*>(fragments), static_cast<float*>(d)};
  const int64_t registers = fragments != nullptr;
  if (type == 0) return run_columns<bfloat16>(n, a_mn, b_mn, registers, p);
  if (type == 1) return run_columns<float16>(n, a_mn, b_mn, registers, p);
  run_columns<float>(n, a_mn, b_mn, registers, p);
}
