// C entries of the CUDA kernels of attention's gradients for the emulator: bfloat16.
#include "emulated/attention_backward_run.h"

EMULATED void emulated_attention_bwd(const suffuse::AttentionGradParams* g, int64_t general,
                                     int64_t) {
  suffuse::run_backward<suffuse::bfloat16, false>(*g, general != 0);
}
