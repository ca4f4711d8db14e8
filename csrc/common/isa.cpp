#include "common/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "common/error.h"

namespace suffuse {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16};
constexpr int kUndecided = -1;
std::atomic<int> g_isa{kUndecided};

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
