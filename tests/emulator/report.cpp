// Findings, and where in the source they are.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <tuple>

#include "emulator/state.h"

namespace emulator {
namespace {

// From the last folder that is the project's own.
std::string short_path(const std::string& path) {
  for (const char* folder : {"csrc/", "tests/"}) {
    const size_t at = path.rfind(folder);
    if (at != std::string::npos && (at == 0 || path[at - 1] == '/')) return path.substr(at);
  }
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

// The words themselves are not where a kernel's mistake is.
bool is_word(const std::string& line) {
  return line.find("/cuda/vocab") != std::string::npos ||
         line.find("/cuda/host/") != std::string::npos ||
         line.find("/emulator/emulator.h") != std::string::npos;
}

// The innermost of the inlined functions at an address that is not a word.
std::string line_of_code(uint64_t code) {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(code), &info)) return "?";
  char command[1024];
  std::snprintf(
      command, sizeof command, "addr2line -e '%s' -i 0x%llx 2>/dev/null", info.dli_fname,
      static_cast<unsigned long long>(code - 1 - reinterpret_cast<uint64_t>(info.dli_fbase)));
  std::string found = "?";
  if (FILE* lines = popen(command, "r")) {
    char buffer[1024];
    while (std::fgets(buffer, sizeof buffer, lines)) {
      std::string line(buffer);
      line.erase(line.find_last_not_of("\n") + 1);
      if (const size_t note = line.find(" (discriminator"); note != std::string::npos) {
        line.erase(note);
      }
      if (is_word(line)) continue;
      found = short_path(line);
      break;
    }
    while (std::fgets(buffer, sizeof buffer, lines)) {
    }
    pclose(lines);
  }
  return found;
}

}  // namespace

uint32_t site_of_code(uint64_t code) {
  static std::unordered_map<uint64_t, uint32_t> known;
  const auto [it, fresh] = known.try_emplace(code, static_cast<uint32_t>(engine.sites.size()));
  if (fresh) engine.sites.push_back({code, {}});
  return it->second;
}

uint32_t site_of(Where where) {
  static std::map<std::pair<const char*, int>, uint32_t> known;
  const auto [it, fresh] =
      known.try_emplace({where.file, where.line}, static_cast<uint32_t>(engine.sites.size()));
  if (fresh) engine.sites.push_back({0, where});
  return it->second;
}

std::string describe(Where where) {
  return where.file ? short_path(where.file) + ":" + std::to_string(where.line) : "?";
}

std::string describe(uint32_t site) {
  static std::unordered_map<uint32_t, std::string> known;
  if (site == 0) return "?";
  std::string& text = known[site];
  if (text.empty()) {
    const Site& s = engine.sites[site];
    text = s.code ? line_of_code(s.code) : describe(s.where);
  }
  return text;
}

std::string thread_name(const Fiber& fiber) {
  const uint3 b = engine.block_index;
  char text[96];
  std::snprintf(text, sizeof text, "block (%u, %u, %u), thread %d (warp %d, lane %d)", b.x, b.y,
                b.z, fiber.slot, fiber.warp, fiber.lane);
  return text;
}

void complain(const char* kind, uint64_t key, const std::string& text,
              const std::vector<uint32_t>& sites) {
  constexpr size_t kMost = 50;
  if (engine.report.findings.size() >= kMost) return;
  if (!engine.reported.insert({kind, key}).second) return;
  Finding finding{kind, text, {}};
  if (engine.current) finding.text += "; " + thread_name(*engine.current);
  for (uint32_t site : sites) finding.sites.push_back(describe(site));
  engine.report.findings.push_back(std::move(finding));
}

void end_launch() {
  engine.aborted = true;
  switch_to_scheduler();
  __builtin_unreachable();
}

void fail(const char* kind, const std::string& text, Where where) {
  const uint32_t site = where.file ? site_of(where) : 0;
  complain(kind, site, site ? text + " at " + describe(site) : text, {site});
  end_launch();
}

}  // namespace emulator
