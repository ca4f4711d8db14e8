// The emulator's tensor maps: what a CUtensorMap says, in the same size.
#pragma once

#include "emulator/emulator.h"

namespace suffuse::gpu {

struct alignas(64) TensorMap {
  emulator::TensorMap map;
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace suffuse::gpu
