// The C interface for tests that are driven from Python.
#include <cstdio>
#include <string>

#include "emulator/state.h"

namespace emulator {
namespace {

Options options;
std::string report;  // what emulator_report returned last

std::string launches;  // JSON of those since then

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + "\"";
}

std::string number(const char* name, uint64_t value) {
  return quoted(name) + ": " + std::to_string(value);
}

std::string json(const char* name, const Traffic& t) {
  return quoted(name) + ": {" + number("requests", t.requests) + ", " +
         number("sectors", t.sectors) + ", " + number("ideal", t.ideal) + ", " +
         number("distinct", t.distinct) + ", " + number("bytes", t.bytes) + "}";
}

std::string json(const Counters& c) {
  return "{" + json("global_load", c.global_load) + ", " + json("global_store", c.global_store) +
         ", " + json("shared_load", c.shared_load) + ", " + json("shared_store", c.shared_store) +
         ", " + json("matrix_load", c.matrix_load) + ", " + json("tensor_load", c.tensor_load) +
         ", " + json("tensor_store", c.tensor_store) + ", " + number("mma", c.mma) + ", " +
         number("wgmma", c.wgmma) + ", " + number("shuffles", c.shuffles) + ", " +
         number("votes", c.votes) + ", " + number("atomics", c.atomics) + ", " +
         number("copies", c.copies) + ", " + number("barriers", c.barriers) + ", " +
         number("accesses", c.accesses) + ", " + number("switches", c.switches) + "}";
}

std::string json(const Finding& finding) {
  std::string sites;
  for (const std::string& site : finding.sites) sites += (sites.empty() ? "" : ", ") + quoted(site);
  return "{\"kind\": " + quoted(finding.kind) + ", \"text\": " + quoted(finding.text) +
         ", \"sites\": [" + sites + "]}";
}

}  // namespace

const Options& current_options() { return options; }

void keep(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const Report& made) {
  std::string findings;
  for (const Finding& finding : made.findings) {
    findings += (findings.empty() ? "" : ", ") + json(finding);
  }
  char shape[160];
  std::snprintf(shape, sizeof shape,
                "\"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"shared\": %zu, \"seconds\": %g",
                grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, made.seconds);
  launches += (launches.empty() ? "" : ", ") + ("{\"kernel\": " + quoted(kernel)) + ", " + shape +
              ", \"findings\": [" + findings + "], \"counters\": " + json(made.counters) + "}";
}

}  // namespace emulator

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

EMULATOR_EXPORT void* emulator_allocate(size_t bytes, const char* name, int initialised) {
  return emulator::allocate(bytes, name, initialised != 0);
}

EMULATOR_EXPORT void emulator_reset() { emulator::reset(); }

// At the end. The stacks of a library's threads are hundreds of mappings, and a process has 65530.
EMULATOR_EXPORT void emulator_release() { emulator::release(); }

// Of the launches to come.
EMULATOR_EXPORT void emulator_options(int races, int counters, uint32_t seed, int mma) {
  emulator::options = {races != 0, counters != 0, seed, static_cast<emulator::MmaRounding>(mma)};
}

// The launches since the last call, a JSON list. Valid until the next call.
EMULATOR_EXPORT const char* emulator_report() {
  emulator::report = "[" + emulator::launches + "]";
  emulator::launches.clear();
  return emulator::report.c_str();
}
