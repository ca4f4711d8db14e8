// The same of float: products rounded to tf32, or made of three.
#include "emulated/attention_backward_run.h"

EMULATED void emulated_attention_bwd(const suffuse::AttentionGradParams* g, int64_t general,
                                     int64_t tf32) {
  if (tf32 != 0) {
    suffuse::run_backward<float, true>(*g, general != 0);
  } else {
    suffuse::run_backward<float, false>(*g, general != 0);
  }
}
