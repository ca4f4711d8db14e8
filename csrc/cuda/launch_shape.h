// What a kernel is launched with. Each kernel has a plain function of its params that gives it, in
// its op's config.h, so that launchers and tests launch alike.
#pragma once

#include <cstdint>

namespace suffuse {

struct LaunchShape {
  int64_t blocks;  // along x
  int32_t threads;
  int32_t shared_bytes;
  int32_t blocks_y = 1, blocks_z = 1;
};

}  // namespace suffuse
