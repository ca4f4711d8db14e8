#include "emulated/cuda_functions.cuh"

#define EMULATED extern "C" __attribute__((visibility("default")))

EMULATED void emulated_word_functions(const uint32_t* in, uint32_t* out, int64_t count) {
  emulator::launch("word_functions_kernel", suffuse::word_functions_kernel, dim3(4), dim3(256), 0,
                   in, out, count);
}

EMULATED void emulated_long_functions(const long long* in, long long* out, int64_t count) {
  emulator::launch("long_functions_kernel", suffuse::long_functions_kernel, dim3(4), dim3(256), 0,
                   in, out, count);
}

EMULATED void emulated_trap(int64_t number) {
  emulator::launch("trap_kernel", suffuse::trap_kernel, dim3(1), dim3(64), 0,
                   int2{static_cast<int>(number), 0});
}
