// The host half of the vocabulary: the words of csrc/cuda/words, and what CUDA C++ spells itself,
// executed by tests/emulator. For g++; included by vocab.cuh under SUFFUSE_EMULATOR.
#pragma once

#include "cuda/host/convert.h"
#include "cuda/host/copy.h"
#include "cuda/host/cuda_atomics.h"
#include "cuda/host/cuda_functions.h"
#include "cuda/host/cuda_language.h"
#include "cuda/host/cuda_warp.h"
#include "cuda/host/hopper.h"
#include "cuda/host/math.h"
#include "cuda/host/memory.h"
#include "cuda/host/mma.h"
#include "cuda/host/sync.h"
#include "cuda/host/warp.h"
