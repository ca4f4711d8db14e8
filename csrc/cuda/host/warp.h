// The host half of csrc/cuda/words/warp.cuh.
#pragma once

#include <cstdint>

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu {

SUFFUSE_DEVICE uint32_t lane() { return static_cast<uint32_t>(emulator::lane_index()); }

SUFFUSE_DEVICE uint32_t warp() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) / 32;
}

SUFFUSE_DEVICE int opaque(int x) { return x; }

SUFFUSE_DEVICE bool elect_one(SUFFUSE_WHERE) {
  // Only the lanes' meeting is checked.
  const auto nothing = [](const emulator::Lanes&) {};
  emulator::collective("elect", 0xffffffffu, nullptr, nullptr, nothing, {file, line});
  return emulator::lane_index() == 0;
}

}  // namespace suffuse::gpu
