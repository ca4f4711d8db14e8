// A CUDA runtime that launches nothing and writes down what launchers ask of it, so that they run
// without a GPU.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace recording {

struct Launch {
  std::string kernel;  // its symbol in the cubin
  dim3 grid, block;
  size_t shared_bytes;
  int most_shared_bytes;  // that the launcher asked for; 48 KiB is what it has unasked
};

// Those so far.
const std::vector<Launch>& launches();

// The device that the launchers see: 80 for 8.0.
void set_compute_capability(int value);

// All launches, as a list in JSON.
void print();

}  // namespace recording
