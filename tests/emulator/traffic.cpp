// Warp requests from single accesses, and what memory makes of them: 32-byte sectors of global
// memory, wavefronts of the 32 banks of shared memory.
#include <algorithm>

#include "emulator/state.h"

namespace emulator {
namespace {

// A wavefront serves every bank once. Accesses of 8 and 16 bytes go in 2 and 4 phases of lanes.
void finish_shared(const SiteTraffic& site, const Request& request) {
  const int phases = site.bytes > 8 ? 4 : site.bytes > 4 ? 2 : 1, lanes = 32 / phases;
  uint64_t wavefronts = 0, ideal = 0;
  for (int phase = 0; phase < phases; phase++) {
    uint64_t words[32 * 4];
    int count = 0;
    for (int lane = phase * lanes; lane < (phase + 1) * lanes; lane++) {
      if (!(request.mask >> lane & 1)) continue;
      const uint64_t first = request.address[lane] / 4;
      for (uint64_t w = first; w <= (request.address[lane] + site.bytes - 1) / 4; w++) {
        words[count++] = w;
      }
    }
    std::sort(words, words + count);
    count = static_cast<int>(std::unique(words, words + count) - words);
    int banks[32] = {};
    for (int i = 0; i < count; i++) ++banks[words[i] & 31];
    wavefronts += static_cast<uint64_t>(*std::max_element(banks, banks + 32));
    ideal += static_cast<uint64_t>((count + 31) / 32);
  }
  Counters& counters = engine.report.counters;
  Traffic& traffic = site.write ? counters.shared_store : counters.shared_load;
  ++traffic.requests;
  traffic.sectors += wavefronts;
  traffic.ideal += ideal;
  traffic.bytes += static_cast<uint64_t>(__builtin_popcount(request.mask)) * site.bytes;
}

void finish_global(const SiteTraffic& site, const Request& request) {
  uint64_t sectors[64], starts[32];
  int sector_count = 0, lanes = 0;
  for (int lane = 0; lane < 32; lane++) {
    if (!(request.mask >> lane & 1)) continue;
    const uint64_t begin = request.address[lane];
    starts[lanes++] = begin;
    sectors[sector_count++] = begin / 32;
    if ((begin + site.bytes - 1) / 32 != begin / 32) sectors[sector_count++] = begin / 32 + 1;
  }
  std::sort(sectors, sectors + sector_count);
  sector_count = static_cast<int>(std::unique(sectors, sectors + sector_count) - sectors);
  std::sort(starts, starts + lanes);
  uint64_t bytes = 0, end = 0;
  for (int i = 0; i < lanes; i++) {
    const uint64_t begin = std::max(starts[i], end);
    end = std::max(end, starts[i] + site.bytes);
    bytes += end - std::min(begin, end);
  }
  Counters& counters = engine.report.counters;
  Traffic& traffic = site.write ? counters.global_store : counters.global_load;
  ++traffic.requests;
  traffic.sectors += static_cast<uint64_t>(sector_count);
  traffic.ideal += (bytes + 31) / 32;
  traffic.bytes += static_cast<uint64_t>(lanes) * site.bytes;
}

void finish(const SiteTraffic& site, const Request& request) {
  if (site.shared) {
    finish_shared(site, request);
  } else {
    finish_global(site, request);
  }
}

void finish_open(const SiteTraffic& site, const RequestLog& log) {
  for (const Request& request : log.open) {
    if (request.mask) finish(site, request);
  }
}

}  // namespace

void count_access(Fiber& fiber, uint64_t address, size_t bytes, bool write, bool shared,
                  uint32_t site) {
  // One site may touch both memories through a generic pointer: they are counted apart.
  const uint32_t id = site * 2 + (shared ? 1 : 0);
  if (engine.site_traffic.size() <= id) engine.site_traffic.resize(id + 64);
  engine.site_traffic[id] = {static_cast<uint8_t>(bytes), write, shared};
  if (fiber.executions.size() <= id) fiber.executions.resize(id + 16);
  Warp& warp = engine.warps[fiber.warp];
  if (warp.log.size() <= id) warp.log.resize(id + 16);
  RequestLog& log = warp.log[id];
  Fiber::Executions& executions = fiber.executions[id];
  if (executions.meeting != warp.meeting_count) executions = {warp.meeting_count, 0};
  if (log.meeting != warp.meeting_count) {  // lanes that took no part before are past it
    finish_open(engine.site_traffic[id], log);
    log.meeting = warp.meeting_count;
    log.first = 0;
    log.open.clear();
  }
  const uint64_t execution = executions.count++;
  while (log.first + log.open.size() <= execution) log.open.emplace_back();
  Request& request = log.open[execution - log.first];
  request.address[fiber.lane] = address;
  request.mask |= 1u << fiber.lane;
  while (!log.open.empty() && log.open.front().mask == 0xffffffffu) {
    finish(engine.site_traffic[id], log.open.front());
    log.open.pop_front();
    ++log.first;
  }
}

void count_distinct(Buffer& buffer, size_t offset, size_t bytes, bool write) {
  const uint8_t bit = write ? 2 : 1;
  Counters& counters = engine.report.counters;
  for (size_t i = offset / 32; i <= (offset + bytes - 1) / 32; i++) {
    if (buffer.touched[i] & bit) continue;
    buffer.touched[i] |= bit;
    ++(write ? counters.global_store : counters.global_load).distinct;
  }
}

// Requests that some lanes of a warp took no part in.
void finish_requests() {
  for (Warp& warp : engine.warps) {
    for (size_t id = 0; id < warp.log.size(); id++) {
      finish_open(engine.site_traffic[id], warp.log[id]);
    }
  }
}

}  // namespace emulator
