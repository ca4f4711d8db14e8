// C entries of attention's CUDA kernels for the emulator: float, with products of tf32.
#define EMULATED_ATTENTION_TYPE float
#define EMULATED_ATTENTION_TF32 true
#include "emulated/attention_entries.h"
