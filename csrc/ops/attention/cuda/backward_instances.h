// The instances of the kernels of attention's gradients, each in a source of its own so that none
// takes long to compile.
#pragma once

#include "ops/attention/params.h"

namespace suffuse {

// Launches those of one element type for the head dims given; nothing where attention_head is none
// of them.
template <class S, bool kGeneral, bool kTf32, int... kHeads>
void launch_attention_backward(const AttentionGradParams& g, void* stream);

}  // namespace suffuse
