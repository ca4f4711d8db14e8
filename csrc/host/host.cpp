// Host-only facts for Python: CPU features and caches. Torch-free on purpose.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "common/isa.h"

namespace {

std::map<std::string, bool> cpu_features() {
#if SUFFUSE_X86
#define SUFFUSE_FEATURE(name)                             \
  {                                                       \
    name, static_cast<bool>(__builtin_cpu_supports(name)) \
  }
  return {SUFFUSE_FEATURE("sse4.2"),    SUFFUSE_FEATURE("avx2"),     SUFFUSE_FEATURE("fma"),
          SUFFUSE_FEATURE("f16c"),      SUFFUSE_FEATURE("avx512f"),  SUFFUSE_FEATURE("avx512bw"),
          SUFFUSE_FEATURE("avx512dq"),  SUFFUSE_FEATURE("avx512vl"), SUFFUSE_FEATURE("avx512vnni"),
          SUFFUSE_FEATURE("avx512bf16")};
#undef SUFFUSE_FEATURE
#else
  return {};
#endif
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (suffuse::Isa isa : {suffuse::Isa::scalar, suffuse::Isa::avx2, suffuse::Isa::avx512,
                           suffuse::Isa::avx512_bf16, suffuse::Isa::amx}) {
    if (suffuse::isa_supported(isa)) names.push_back(suffuse::isa_name(isa));
  }
  return names;
}

// Bytes; 0 where the system does not say.
std::map<std::string, long> cache_bytes() {
  std::map<std::string, long> sizes;
#ifdef _SC_LEVEL1_DCACHE_SIZE
  sizes["l1d"] = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  sizes["l2"] = sysconf(_SC_LEVEL2_CACHE_SIZE);
  sizes["l3"] = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return sizes;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host-only facts: CPU features, supported ISAs, cache sizes.";
  m.def("cpu_features", &cpu_features, "Feature name -> whether this CPU has it.");
  m.def("supported_isas", &supported_isas, "Kernel ISAs that this CPU can run, slowest first.");
  m.def("cache_bytes", &cache_bytes, "Cache level -> bytes, 0 if unknown.");
  m.attr("compiler") = __VERSION__;
  m.attr("built_isas") = SUFFUSE_ISAS;
}
