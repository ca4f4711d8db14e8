// The matrix product of sm_90a as a device gets it.
#include "cuda/gemm_sm90.cuh"

namespace suffuse {

using gpu::Major;

template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, bfloat16, Major::k, Major::k, 128, 2, 4>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, bfloat16, Major::k, Major::k, 256, 2, 3>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, bfloat16, Major::k, Major::mn, 128, 2, 4>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, float, Major::mn, Major::mn, 128, 2, 4>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, bfloat16, Major::k, Major::k, 128, 1, 4>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<bfloat16, bfloat16, Major::k, Major::k, 128, 3, 3>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void
gemm_sm90_kernel<GemmSm90<float16, float16, Major::k, Major::k, 128, 2, 4>>(
    const __grid_constant__ GemmSm90Params);
template __global__ void gemm_sm90_kernel<GemmSm90<float, float, Major::k, Major::k, 128, 2, 4>>(
    const __grid_constant__ GemmSm90Params);

}  // namespace suffuse
