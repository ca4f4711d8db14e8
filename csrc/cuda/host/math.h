// The host half of csrc/cuda/words/math.cuh: the exact value, moved within the documented error
// where the launch asks for that.
#pragma once

#include <math.h>

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu {

namespace host {

// A zero of that sign for a subnormal number.
SUFFUSE_DEVICE float flush(float x) { return ::fabsf(x) < 0x1p-126f ? ::copysignf(0.f, x) : x; }

}  // namespace host

SUFFUSE_DEVICE float exp2_approx(float x) {
  const double exact = ::exp2(static_cast<double>(x));
  return host::flush(emulator::approximate(static_cast<float>(exact), 2));
}

SUFFUSE_DEVICE float log2_approx(float x) {
  const float exact = static_cast<float>(::log2(static_cast<double>(host::flush(x))));
  if (!(x > 0.5f && x < 2.f)) return emulator::approximate_relative(exact, 0x1p-22f);
  return exact + (emulator::approximate_relative(1.f, 0x1p-22f) - 1.f);
}

SUFFUSE_DEVICE float reciprocal_approx(float x) {
  return host::flush(emulator::approximate(1.f / host::flush(x), 1));
}

SUFFUSE_DEVICE float rsqrt_approx(float x) {
  const double exact = 1.0 / ::sqrt(static_cast<double>(host::flush(x)));
  return emulator::approximate_relative(static_cast<float>(exact), 1.27e-7f);  // 2^-22.9
}

SUFFUSE_DEVICE float tanh_approx(float x) {
  const double exact = ::tanh(static_cast<double>(x));
  return emulator::approximate_relative(static_cast<float>(exact), 0x1p-11f);
}

}  // namespace suffuse::gpu
