// C entries of attention's CUDA kernels for the emulator: bfloat16.
#define EMULATED_ATTENTION_TYPE suffuse::bfloat16
#define EMULATED_ATTENTION_TF32 false
#include "emulated/attention_entries.h"
