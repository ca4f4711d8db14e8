// One bug a kernel, for test_static_findings.py. Not a kernel of the project.
#include "cuda/vocab.cuh"

namespace suffuse {

struct Buffers {
  float* out;
  const float* in;
  int n;
};

// More live values than registers.
template <int kValues>
__global__ void __launch_bounds__(1024) spilling(const Buffers p) {
  float value[kValues];
#pragma unroll
  for (int i = 0; i < kValues; i++) value[i] = p.in[i * 1024 + threadIdx.x];
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kValues; i++) sum = fmaf(sum, value[i], value[kValues - 1 - i]);
  p.out[threadIdx.x] = sum;
}
template __global__ void spilling<128>(const Buffers);

// An array that is indexed at run time.
__global__ void __launch_bounds__(128) indexing(const Buffers p) {
  float value[16] = {};
  for (int i = 0; i < p.n; i++) value[static_cast<int>(p.in[i]) & 15] += p.in[threadIdx.x];
  p.out[threadIdx.x] = value[p.n & 15];
}

__global__ void __launch_bounds__(128) static_shared(const Buffers p) {
  __shared__ float value[128];
  value[threadIdx.x] = p.in[threadIdx.x];
  __syncthreads();
  p.out[threadIdx.x] = value[p.n];
}

__global__ void unbounded(const Buffers p) { p.out[threadIdx.x] = p.in[p.n]; }

__global__ void __launch_bounds__(128) trapping(const Buffers p) {
  if (p.n > 0) __trap();
}

// Touches accumulators between two products, so that these cannot overlap.
__global__ void __launch_bounds__(128) serialized(const Buffers p) {
  float d[32];
#pragma unroll
  for (int i = 0; i < 32; i++) d[i] = p.in[i * 128 + threadIdx.x];
  const uint64_t tile =
      gpu::wgmma_descriptor(&gpu::shared<float4>(), gpu::Swizzle::bytes128, 0, 1024);
  gpu::wgmma_fence(d);
  gpu::wgmma<64, bfloat16>(d, tile, tile, true);
  d[0] += 1;
  gpu::wgmma<64, bfloat16>(d, tile, tile, true);
  gpu::wgmma_commit();
  gpu::wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < 32; i++) p.out[i * 128 + threadIdx.x] = d[i];
}

// What is counted: a copy of 16 bytes, a shuffle, an exponential, an addition to memory.
__global__ void __launch_bounds__(128) counted(const Buffers p) {
  auto* out = reinterpret_cast<float4*>(p.out);
  float4 value = reinterpret_cast<const float4*>(p.in)[threadIdx.x];
  value.x = exp2f(__shfl_xor_sync(~0u, value.x, 1));
  out[threadIdx.x] = value;
  atomicAdd(p.out + 4096, value.y);
}

}  // namespace suffuse
