// launch(name, kernel, shape, arguments) by the emulator, for passes that a launcher of CUDA takes
// too.
#pragma once

#include "cuda/launch_shape.h"
#include "emulator/emulator.h"

namespace suffuse {

struct EmulatedLauncher {
  template <class... P, class... A>
  void operator()(const char* name, void (*kernel)(P...), const LaunchShape& shape,
                  A... arguments) const {
    emulator::launch(name, kernel, dim3(static_cast<unsigned>(shape.blocks)),
                     dim3(static_cast<unsigned>(shape.threads)),
                     static_cast<size_t>(shape.shared_bytes), arguments...);
  }
};

}  // namespace suffuse
