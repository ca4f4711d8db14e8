// The emulator's tensor maps: what a CUtensorMap says, in the same size.
#pragma once

#include "emulator/emulator.h"

namespace suffuse::gpu {

union TensorMap {
  emulator::TensorMap map;
  unsigned char opaque[128];
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace suffuse::gpu
