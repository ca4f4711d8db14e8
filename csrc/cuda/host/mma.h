// The host half of csrc/cuda/words/mma.cuh.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "cuda/host/cuda_language.h"

namespace suffuse::gpu {

SUFFUSE_DEVICE void load_matrix_x1(uint32_t (&r)[1], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 1, false, {file, line});
}
SUFFUSE_DEVICE void load_matrix_x2(uint32_t (&r)[2], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 2, false, {file, line});
}
SUFFUSE_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 4, false, {file, line});
}
SUFFUSE_DEVICE void load_matrix_x1_transposed(uint32_t (&r)[1], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 1, true, {file, line});
}
SUFFUSE_DEVICE void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 2, true, {file, line});
}
SUFFUSE_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row, SUFFUSE_WHERE) {
  emulator::load_matrix(r, row, 4, true, {file, line});
}

template <class S>
SUFFUSE_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 SUFFUSE_WHERE) {
  static_assert(std::is_same_v<S, bfloat16> || std::is_same_v<S, float16>);
  constexpr auto kType =
      std::is_same_v<S, bfloat16> ? emulator::MmaType::bf16 : emulator::MmaType::f16;
  emulator::mma(d, a, b, d, kType, {file, line});
}

SUFFUSE_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                     SUFFUSE_WHERE) {
  emulator::mma(d, a, b, d, emulator::MmaType::tf32, {file, line});
}

}  // namespace suffuse::gpu
