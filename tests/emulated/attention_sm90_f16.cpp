// C entries of attention's sm_90a kernel for the emulator: float16.
#define EMULATED_ATTENTION_TYPE suffuse::float16
#include "emulated/attention_sm90_entries.h"
