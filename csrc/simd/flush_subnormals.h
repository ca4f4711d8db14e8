// Results too small for a normal number become 0 while this lives, on the calling thread.
// Arithmetic on subnormal numbers costs a hundred cycles and more on many CPUs, and decaying sums
// (softmax weights, gates) are full of them. Subnormal inputs keep their value: the conversion of
// small half-precision numbers needs them.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace suffuse {

class FlushSubnormals {
 public:
#if defined(__SSE2__)
  SUFFUSE_INLINE FlushSubnormals() : before_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(static_cast<unsigned>(before_) | 0x8000u);  // FTZ
  }
  SUFFUSE_INLINE ~FlushSubnormals() { __builtin_ia32_ldmxcsr(static_cast<unsigned>(before_)); }
#elif defined(__aarch64__)
  // AArch64 has one bit for results and inputs, so it is left alone there.
  SUFFUSE_INLINE FlushSubnormals() : before_(0) {}
#else
  SUFFUSE_INLINE FlushSubnormals() : before_(0) {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  uint64_t before_;
};

}  // namespace suffuse
