// C entries of attention's CUDA kernels for the emulator: float16.
#define EMULATED_ATTENTION_TYPE suffuse::float16
#define EMULATED_ATTENTION_TF32 false
#include "emulated/attention_entries.h"
