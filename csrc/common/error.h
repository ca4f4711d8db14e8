// The library's only exception type. Torch turns it into a Python RuntimeError.
#pragma once

#include <stdexcept>
#include <string>

namespace suffuse {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace suffuse
