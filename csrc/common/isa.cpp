#include "common/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "common/error.h"

#if SUFFUSE_X86
#include <cpuid.h>
#endif
#if SUFFUSE_X86 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace suffuse {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};
constexpr int kUndecided = -1;
std::atomic<int> g_isa{kUndecided};

#if SUFFUSE_X86
bool cpu_has_amx() {
  constexpr unsigned kTile = 1u << 24, kBf16 = 1u << 22;  // EDX of leaf 7
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTile) != 0 &&
         (edx & kBf16) != 0;
}

// Linux keeps tiles only for processes that ask for it. Once granted it holds for every thread.
bool system_keeps_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

bool amx_usable() {
  static const bool usable = cpu_has_amx() && system_keeps_tiles();
  return usable;
}
#endif

Isa best_isa() {
  Isa best = Isa::scalar;
  for (Isa isa : kAll) {
    if (isa_supported(isa)) best = isa;
  }
  return best;
}

std::string supported_names() {
  std::string names = "auto";
  for (Isa isa : kAll) {
    if (isa_supported(isa)) names += std::string(", ") + isa_name(isa);
  }
  return names;
}

Isa isa_from_name(const std::string& name) {
  if (name.empty() || name == "auto") return best_isa();
  for (Isa isa : kAll) {
    if (name == isa_name(isa) && isa_supported(isa)) return isa;
  }
  throw Error("SUFFUSE_CPU_ISA: this CPU takes one of (" + supported_names() + "), got '" + name +
              "'");
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

bool isa_supported(Isa isa) {
#if SUFFUSE_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512_bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::amx:
      return avx512 && __builtin_cpu_supports("avx512bf16") && amx_usable();
  }
  return false;
#else
  return isa == Isa::scalar;
#endif
}

Isa current_isa() {
  int isa = g_isa.load(std::memory_order_relaxed);
  if (isa == kUndecided) {
    const char* forced = std::getenv("SUFFUSE_CPU_ISA");
    isa = static_cast<int>(isa_from_name(forced ? forced : ""));
    g_isa.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

void set_isa(const char* name) {
  g_isa.store(static_cast<int>(isa_from_name(name)), std::memory_order_relaxed);
}

}  // namespace suffuse
