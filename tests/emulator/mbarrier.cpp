// Barriers in shared memory that count arrivals and bytes, and the proxy fence.
#include <algorithm>
#include <cstring>

#include "emulator/hopper.h"

namespace emulator {
namespace {

constexpr int kMostCount = (1 << 20) - 1;

struct Mbarrier {
  uint64_t image = 0;  // what stands in memory while nobody has written over it
  int count = 0, pending = 0;
  int64_t bytes = 0;    // announced and still to come
  uint32_t phases = 0;  // that are complete
  Access init;
  bool visible_to_units = false;
  int agent = -1;
  Known gathered;   // from those that have arrived in this phase
  Known completed;  // of the phase before
  std::vector<Fiber*> waiting;
};

std::map<size_t, Mbarrier>& mbarriers() {
  static std::map<size_t, Mbarrier> all;
  return all;
}

size_t checked_offset(uint64_t* barrier, Where where) {
  const size_t offset = shared_address(barrier, where);
  if (offset % 8 || offset + 8 > engine.shared.bytes) {
    fail("mbarrier",
         "a barrier at offset " + std::to_string(offset) +
             ": expected a multiple of 8 within the shared memory",
         where);
  }
  return offset;
}

Mbarrier& find_mbarrier(uint64_t* barrier, Where where) {
  const size_t offset = checked_offset(barrier, where);
  const auto it = mbarriers().find(offset);
  if (it == mbarriers().end()) {
    fail("mbarrier", "the barrier at offset " + std::to_string(offset) + " is not initialised",
         where);
  }
  Mbarrier& found = it->second;
  if (std::memcmp(barrier, &found.image, sizeof found.image) != 0) {
    fail("mbarrier", "the barrier at offset " + std::to_string(offset) + " was written over",
         where);
  }
  return found;
}

void check_init_seen(const Mbarrier& barrier, const Fiber& fiber, Where where) {
  if (!engine.options.races || happened_before(barrier.init, fiber)) return;
  const uint32_t site = site_of(where);
  complain("mbarrier", uint64_t(site) << 32 | barrier.init.site,
           "a barrier is used at " + describe(where) + ", but nothing orders that behind its " +
               "initialisation at " + describe(barrier.init.site),
           {site, barrier.init.site});
}

Mbarrier& use_mbarrier(uint64_t* barrier, Where where) {
  Mbarrier& found = find_mbarrier(barrier, where);
  check_init_seen(found, *engine.current, where);
  return found;
}

void gather(Mbarrier& barrier, const Moment& moment) {
  if (!engine.options.races) return;
  barrier.gathered = merge({{barrier.gathered, -1, 0}, moment});
}

void complete_phase(Mbarrier& barrier) {
  if (barrier.pending || barrier.bytes) return;
  ++barrier.phases;
  barrier.pending = barrier.count;
  barrier.completed = std::move(barrier.gathered);
  barrier.gathered = nullptr;
  for (Fiber* fiber : barrier.waiting) {
    acquire(*fiber, barrier.completed);
    wake(*fiber);
  }
  barrier.waiting.clear();
}

// Too many bytes leave the barrier without a phase that could complete.
void check_bytes(const Mbarrier& barrier, uint32_t site) {
  if (barrier.bytes > kMostCount || (barrier.pending == 0 && barrier.bytes < 0)) {
    complain("mbarrier bytes", site,
             barrier.bytes < 0 ? std::to_string(-barrier.bytes) + " bytes more than announced at " +
                                     describe(site)
                               : "more than 2^20 - 1 bytes announced at " + describe(site),
             {site});
    engine.aborted = true;
  }
}

bool is_complete(const Mbarrier& barrier, uint32_t parity) {
  return (barrier.phases & 1) != parity;
}

}  // namespace

void reset_mbarriers() { mbarriers().clear(); }

void mbarrier_init(uint64_t* barrier, int count, Where where) {
  const size_t offset = checked_offset(barrier, where);
  if (count < 1 || count > kMostCount) {
    fail("mbarrier", "a count of " + std::to_string(count) + ": expected 1 to 2^20 - 1", where);
  }
  if (mbarriers().count(offset)) {
    fail("mbarrier",
         "the barrier at offset " + std::to_string(offset) +
             " is initialised again without mbarrier_invalidate",
         where);
  }
  const uint32_t site = site_of(where);
  const Fiber& fiber = *engine.current;
  access(barrier, 8, Kind::write, site, false);
  Mbarrier made;
  made.count = made.pending = count;
  made.init = {fiber.clock, static_cast<uint16_t>(fiber.slot), false, false, site};
  made.agent = new_agent();
  made.image = 0xb000000000000000u + (uint64_t(offset) << 24) + static_cast<uint64_t>(count);
  std::memcpy(barrier, &made.image, sizeof made.image);
  mbarriers().emplace(offset, std::move(made));
}

void mbarrier_invalidate(uint64_t* barrier, Where where) {
  const Mbarrier& found = use_mbarrier(barrier, where);
  if (!found.waiting.empty()) fail("mbarrier", "threads wait on an invalidated barrier", where);
  access(barrier, 8, Kind::write, site_of(where), false);
  mbarriers().erase(shared_offset(barrier));
}

void fence_mbarrier_init() {
  for (auto& [offset, barrier] : mbarriers()) {
    if (barrier.init.slot == engine.current->slot) barrier.visible_to_units = true;
  }
}

void mbarrier_arrive(uint64_t* barrier, int expected_bytes, Where where) {
  Mbarrier& found = use_mbarrier(barrier, where);
  if (found.pending == 0) {
    fail("mbarrier",
         "more threads arrive in one phase than the " + std::to_string(found.count) +
             " that the barrier was initialised for",
         where);
  }
  if (expected_bytes < 0) fail("mbarrier bytes", "a negative number of bytes", where);
  --found.pending;
  found.bytes += expected_bytes;
  gather(found, moment_of(*engine.current));
  check_bytes(found, site_of(where));
  if (engine.aborted) end_launch();
  complete_phase(found);
}

bool mbarrier_test(uint64_t* barrier, uint32_t parity, Where where) {
  if (!is_complete(use_mbarrier(barrier, where), parity)) spin(where);
  const Mbarrier& found = find_mbarrier(barrier, where);
  if (!is_complete(found, parity)) return false;
  acquire(*engine.current, found.completed);
  return true;
}

void mbarrier_wait(uint64_t* barrier, uint32_t parity, Where where) {
  Mbarrier& found = use_mbarrier(barrier, where);
  if (parity > 1) fail("mbarrier", "a parity of " + std::to_string(parity), where);
  if (is_complete(found, parity)) return acquire(*engine.current, found.completed);
  found.waiting.push_back(engine.current);
  block_on("mbarrier_wait", where);
}

std::string missing_at(const Fiber& fiber) {
  for (const auto& [offset, barrier] : mbarriers()) {
    if (std::find(barrier.waiting.begin(), barrier.waiting.end(), &fiber) ==
        barrier.waiting.end()) {
      continue;
    }
    return " (" + std::to_string(barrier.pending) + " of " + std::to_string(barrier.count) +
           " arrivals and " + std::to_string(barrier.bytes) + " bytes are missing in phase " +
           std::to_string(barrier.phases) + " of the barrier at offset " + std::to_string(offset) +
           ")";
  }
  return "";
}

int agent_of_mbarrier(uint64_t* barrier, const Fiber& starter, Where where) {
  const Mbarrier& found = use_mbarrier(barrier, where);
  if (engine.options.races && !found.visible_to_units && !fenced_before(found.init, starter)) {
    const uint32_t site = site_of(where);
    complain("proxy fence missing", uint64_t(site) << 32 | found.init.site,
             "the barrier that was initialised at " + describe(found.init.site) +
                 " takes bytes of the copy at " + describe(where) +
                 " without a fence_mbarrier_init between them",
             {site, found.init.site});
  }
  return found.agent;
}

void complete_bytes(uint64_t* barrier, int64_t bytes, const Moment& moment, uint32_t site) {
  const auto it = mbarriers().find(shared_offset(barrier));
  if (it == mbarriers().end()) {
    complain("mbarrier", site,
             "the barrier of the copy at " + describe(site) + " is gone when its bytes arrive",
             {site});
    engine.aborted = true;
    return;
  }
  it->second.bytes -= bytes;
  gather(it->second, moment);
  check_bytes(it->second, site);
  if (!engine.aborted) complete_phase(it->second);
}

// What is known now to have been written is visible to asynchronous units from here on.
void fence_async() {
  Fiber& fiber = *engine.current;
  auto known = std::make_shared<Knowledge>(*merge({moment_of(fiber)}));
  known->fenced = known->seen;
  fiber.known = std::move(known);
}

}  // namespace emulator
