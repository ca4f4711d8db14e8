// Which kernels a call runs, for the launcher and for tests: `launch` is called with a kernel's
// name, the kernel, its shape and its arguments.
#pragma once

#include "ops/attention/cuda/decode.cuh"
#include "ops/attention/cuda/kernel.cuh"

namespace suffuse {

// The forward of one type, for the head dims given.
template <class S, bool kGeneral, bool kTf32, int... kHeads, class Launch>
void attention_forward_passes(const AttentionParams& p, const Launch& launch) {
  const int head = attention_head(p), bytes = attention_copy_bytes(p);
  const auto run = [&](auto tag) {
    using Config = typename decltype(tag)::type;
    const LaunchShape shape = attention_forward_shape<Config>(p);
    if (shape.blocks > 0)
      launch("attention_forward_kernel", attention_forward_kernel<Config>, shape, p, bytes);
  };
  ((head == kHeads ? run(TypeTag<AttentionForward<S, kHeads, kHeads, kGeneral, kTf32>>()) : void()),
   ...);
}

// The forward of one type.
template <class S, bool kTf32, class Launch>
void attention_forward(const AttentionParams& p, const Launch& launch) {
  if (attention_is_general(p)) {
    attention_forward_passes<S, true, kTf32, 32, 64, 96, 128, 192, 256>(p, launch);
  } else {
    attention_forward_passes<S, false, kTf32, 32, 64, 96, 128, 192, 256>(p, launch);
  }
}

// Decoding of one type.
template <class S, int... kHeads, class Launch>
void attention_decode_passes(const AttentionDecodeParams& d, const Launch& launch) {
  const int head = attention_head(d.forward), bytes = attention_copy_bytes(d.forward);
  const LaunchShape combine = attention_combine_shape(d);
  if (combine.blocks == 0) return;
  const auto run = [&](auto tag) {
    using Config = typename decltype(tag)::type;
    launch("attention_decode_kernel", attention_decode_kernel<Config>,
           attention_decode_shape<Config>(d), d, bytes);
  };
  ((head == kHeads ? run(TypeTag<AttentionDecode<S, kHeads>>()) : void()), ...);
  launch("attention_combine_kernel", attention_combine_kernel<S>, combine, d);
}

}  // namespace suffuse
