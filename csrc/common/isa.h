// Which instruction set the CPU kernels run on. Every kernel is compiled once per ISA into a
// namespace of that name; the choice is made once, at the first call, and can be forced by
// SUFFUSE_CPU_ISA. Only the kernels that multiply tiles have a form for amx; the others run as on
// avx512_bf16 there.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define SUFFUSE_X86 1
#else
#define SUFFUSE_X86 0
#endif

namespace suffuse {

enum class Isa : int32_t { scalar, avx2, avx512, avx512_bf16, amx };

// The one in use. Throws Error if SUFFUSE_CPU_ISA names an unknown or unsupported one.
Isa current_isa();
// Forces one by name ("scalar", "avx2", "avx512", "avx512_bf16", "amx", or "auto"); throws Error if
// this CPU lacks it.
void set_isa(const char* name);
const char* isa_name(Isa isa);
bool isa_supported(Isa isa);

}  // namespace suffuse

// SUFFUSE_DECLARE_KERNEL(void, f, (const P& p, int64_t begin, int64_t end), (p, begin, end))
// declares f in every ISA namespace and suffuse::f, which calls the one in use.
#if SUFFUSE_X86
#define SUFFUSE_DECLARE_KERNEL(result, name, params, args) \
  namespace suffuse {                                      \
  namespace scalar {                                       \
  result name params;                                      \
  }                                                        \
  namespace avx2 {                                         \
  result name params;                                      \
  }                                                        \
  namespace avx512 {                                       \
  result name params;                                      \
  }                                                        \
  namespace avx512_bf16 {                                  \
  result name params;                                      \
  }                                                        \
  inline result name params {                              \
    switch (current_isa()) {                               \
      case Isa::amx:                                       \
      case Isa::avx512_bf16:                               \
        return avx512_bf16::name args;                     \
      case Isa::avx512:                                    \
        return avx512::name args;                          \
      case Isa::avx2:                                      \
        return avx2::name args;                            \
      case Isa::scalar:                                    \
        break;                                             \
    }                                                      \
    return scalar::name args;                              \
  }                                                        \
  }
#else
#define SUFFUSE_DECLARE_KERNEL(result, name, params, args) \
  namespace suffuse {                                      \
  namespace scalar {                                       \
  result name params;                                      \
  }                                                        \
  inline result name params { return scalar::name args; }  \
  }
#endif
