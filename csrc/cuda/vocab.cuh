// The words that CUDA kernels are written in. What CUDA C++ spells itself (threadIdx,
// __syncthreads, shuffles, votes, atomics, fmaf ...) keeps that spelling; everything that is PTX is
// a word in suffuse::gpu, and csrc/cuda/words is the only place with inline PTX.
//
// There are two halves with the same words. nvcc compiles csrc/cuda/words, where each word is
// documented. Under SUFFUSE_EMULATOR g++ compiles csrc/cuda/host, where each word, and what CUDA
// spells itself, calls tests/emulator and a kernel runs on the CPU.
//
// SUFFUSE_DEVICE qualifies the functions of kernels, members included.
#pragma once

#include <cstdint>

#include "common/dtype.h"

#if defined(SUFFUSE_EMULATOR)
#include "cuda/vocab_host.h"
#else
#define SUFFUSE_DEVICE __device__ __forceinline__
#include "cuda/words/convert.cuh"
#include "cuda/words/copy.cuh"
#include "cuda/words/math.cuh"
#include "cuda/words/mbarrier.cuh"
#include "cuda/words/memory.cuh"
#include "cuda/words/mma.cuh"
#include "cuda/words/sync.cuh"
#include "cuda/words/tma.cuh"
#include "cuda/words/warp.cuh"
#include "cuda/words/wgmma.cuh"
#endif
