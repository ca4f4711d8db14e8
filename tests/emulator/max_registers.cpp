// setmaxnreg: warps hand registers to each other, those of a warpgroup all alike.
#include <algorithm>

#include "emulator/hopper.h"

namespace emulator {
namespace {

constexpr int kRegisterFile = 65536, kMost = 256, kWarpsInGroup = 4;

struct Share {  // of a warp, in registers of each thread
  int registers = 0;
  std::vector<int> settings;  // so far
  uint32_t site = 0;          // of the last
};

struct Pool {
  int free = 0;
  std::vector<Share> warps;
  std::vector<Fiber*> waiting;  // one lane of each warp that wants more
};

Pool& pool() {
  static Pool shared;
  return shared;
}

// What a compiler may give each thread at most: the kernel's own number is not known here.
int at_launch() { return std::min(kMost, kRegisterFile / engine.threads) / 8 * 8; }

void check_setting(const Share& share, int count, bool increase, Where where) {
  const bool in_range = count >= 24 && count <= kMost && count % 8 == 0;
  const bool right_way = increase ? count >= share.registers : count <= share.registers;
  if (!in_range || !right_way) {
    fail("register count",
         std::to_string(count) + " after " + std::to_string(share.registers) +
             " registers: expected a multiple of 8 from 24 to 256, " +
             (increase ? "not less" : "not more"),
         where);
  }
}

// All warps of a warpgroup go through the same settings.
void check_group(int warp, Where where) {
  const std::vector<int>& mine = pool().warps[static_cast<size_t>(warp)].settings;
  const int first = warp / kWarpsInGroup * kWarpsInGroup;
  for (int other = first; other < first + kWarpsInGroup; other++) {
    if (static_cast<size_t>(other) >= pool().warps.size()) {
      fail("warpgroup", "the block has no four warps for this warpgroup", where);
    }
    const std::vector<int>& theirs = pool().warps[static_cast<size_t>(other)].settings;
    const bool ended = engine.fibers[static_cast<size_t>(other) * 32].status == Status::done;
    const size_t both = std::min(mine.size(), theirs.size());
    if (std::equal(mine.begin(), mine.begin() + static_cast<ptrdiff_t>(both), theirs.begin()) &&
        !(ended && mine.size() > theirs.size())) {
      continue;
    }
    fail("warpgroup divergence", "warps of one warpgroup set different numbers of registers",
         where);
  }
}

}  // namespace

void reset_register_pool() {
  pool() = {};
  pool().warps.resize((static_cast<size_t>(engine.threads) + 31) / 32);
  for (Share& share : pool().warps) share.registers = at_launch();
}

void set_max_registers(int count, bool increase, Where where) {
  const Fiber& fiber = *engine.current;
  collective("set_max_registers", 0xffffffffu, nullptr, nullptr, nullptr, where);
  Share& share = pool().warps[static_cast<size_t>(fiber.warp)];
  if (fiber.lane == 0) {
    check_setting(share, count, increase, where);
    share.settings.push_back(count);
    share.site = site_of(where);
    check_group(fiber.warp, where);
    while (pool().free < count - share.registers) {
      pool().waiting.push_back(engine.current);
      block_on("set_max_registers", where);
    }
    pool().free -= count - share.registers;
    share.registers = count;
    for (Fiber* waiting : pool().waiting) wake(*waiting);
    pool().waiting.clear();
  }
  collective("set_max_registers", 0xffffffffu, nullptr, nullptr, nullptr, where);
}

void check_settings_complete(const Fiber& fiber) {
  const auto& warps = pool().warps;
  const auto mine = static_cast<size_t>(fiber.warp), first = mine / kWarpsInGroup * kWarpsInGroup;
  for (size_t other = first; other < std::min(first + kWarpsInGroup, warps.size()); other++) {
    if (warps[other].settings.size() <= warps[mine].settings.size()) continue;
    const uint32_t site = warps[other].site;
    complain("warpgroup divergence", site,
             "a warp ends without the set_max_registers at " + describe(site) +
                 " that others of its warpgroup have executed",
             {site});
  }
}

}  // namespace emulator
