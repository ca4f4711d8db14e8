// The same of float16.
#include "emulated/attention_backward_run.h"

EMULATED void emulated_attention_bwd(const suffuse::AttentionGradParams* g, int64_t general,
                                     int64_t) {
  suffuse::run_backward<suffuse::float16, false>(*g, general != 0);
}
