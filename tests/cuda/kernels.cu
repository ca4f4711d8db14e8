// The building blocks of csrc/cuda as a device gets them, in the sizes that kernels use them in.
#include "../emulated/blocks.cuh"
#include "../emulated/scan_rows.cuh"
#include "cuda/gemm_sm80.cuh"

namespace suffuse {

template __global__ void reduce_rows_kernel<Sum<float>>(const float*, float*, int, int);
template __global__ void reduce_rows_kernel<Max<float>>(const float*, float*, int, int);
template __global__ void scan_squares_kernel<2>(const Square*, Square*, Square*, int);

template __global__ void linear_scan_kernel<float, 128, 16, false>(const LinearScanParams<float>);
template __global__ void linear_scan_kernel<float, 128, 16, true>(const LinearScanParams<float>);
template __global__ void linear_scan_kernel<bfloat16, 128, 16, false>(
    const LinearScanParams<bfloat16>);
template __global__ void linear_scan_split_kernel<bfloat16, 256, 16, false>(
    const LinearScanParams<bfloat16>);
template __global__ void linear_scan_split_kernel<float, 256, 16, true>(
    const LinearScanParams<float>);

template __global__ void copy_tiles_kernel<bfloat16, 64, 64, 16, 3, 128>(
    const Matrix<const bfloat16>, const Matrix<bfloat16>);

template <class S, bool kTransposedA, bool kTransposedB>
using Gemm = GemmSm80<S, 128, 128, 2, 4, 4, kTransposedA, kTransposedB>;

template __global__ void gemm_sm80_kernel<Gemm<bfloat16, false, true>, bfloat16, 16, 16>(
    const GemmSm80Params<bfloat16, bfloat16>);
template __global__ void gemm_sm80_kernel<Gemm<bfloat16, false, false>, bfloat16, 16, 16>(
    const GemmSm80Params<bfloat16, bfloat16>);
template __global__ void gemm_sm80_kernel<Gemm<bfloat16, true, false>, float, 16, 16>(
    const GemmSm80Params<bfloat16, float>);
template __global__ void gemm_sm80_kernel<Gemm<float16, false, true>, float16, 16, 16>(
    const GemmSm80Params<float16, float16>);
template __global__ void gemm_sm80_kernel<Gemm<float16, false, false>, float16, 2, 2>(
    const GemmSm80Params<float16, float16>);
template __global__ void gemm_sm80_kernel<Gemm<float, false, true>, float, 16, 16>(
    const GemmSm80Params<float, float>);
template __global__ void gemm_sm80_kernel<Gemm<float, false, false>, float, 16, 16>(
    const GemmSm80Params<float, float>);
template __global__ void gemm_sm80_kernel<Gemm<float, true, false>, float, 4, 4>(
    const GemmSm80Params<float, float>);

}  // namespace suffuse
