// How the CUDA kernels of s4_kernel are launched: plain functions of the params.
#pragma once

#include <cstdint>

#include "cuda/launch_shape.h"
#include "ops/s4_kernel/params.h"

namespace suffuse {

constexpr int kS4Threads = 256;
constexpr int kS4Terms = 16;   // whose powers a block holds at once
constexpr int kS4Groups = 16;  // of rows: threads next to each other have 16 neighbouring columns
constexpr int kS4Lanes = kS4Threads / kS4Groups;
constexpr int kS4CauchyTerms = 256;  // that a block holds at once
constexpr int kS4CauchyBlock = 16;   // that are added up before their sum is added to the total

// Rows of the tile that a thread has: four, or one where that leaves too few blocks or threads
// idle.
inline int s4_thread_rows(const S4VandermondeParams& p) {
  constexpr int64_t kEnoughBlocks = 512;  // four on each multiprocessor of a large card
  return p.length <= kS4Chunk / 4 || p.rows * s4_chunks(p.length) < kEnoughBlocks ? 1 : 4;
}

// Blocks of a row.
inline int64_t s4_tiles(const S4VandermondeParams& p) {
  const int64_t tile = kS4Columns * kS4Groups * s4_thread_rows(p);
  return (p.length + tile - 1) / tile;
}

// Threads that share the terms of an output: one, or eight where there are few outputs.
inline int s4_cauchy_groups(const S4CauchyParams& p) { return p.outputs < p.terms ? 8 : 1; }

inline int64_t s4_cauchy_tiles(const S4CauchyParams& p) {
  const int64_t tile = kS4Threads / s4_cauchy_groups(p);
  return (p.outputs + tile - 1) / tile;
}

}  // namespace suffuse
