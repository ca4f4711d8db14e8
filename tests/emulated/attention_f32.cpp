// C entries of attention's CUDA kernels for the emulator: float, with products as exact as those of
// float.
#define EMULATED_ATTENTION_TYPE float
#define EMULATED_ATTENTION_TF32 false
#include "emulated/attention_entries.h"
