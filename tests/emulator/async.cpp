// cp.async: in flight from its issue until its group is waited for.
#include <cstring>

#include "emulator/state.h"

namespace emulator {

void copy_async(void* shared_target, const void* global, int bytes, int source_bytes, Where where) {
  Fiber& fiber = *engine.current;
  char* target = static_cast<char*>(shared_target);
  const uint32_t site = site_of_code(reinterpret_cast<uint64_t>(__builtin_return_address(0)));
  ++engine.report.counters.copies;
  if (!is_shared(target)) {
    fail("out of bounds", "the target of a copy is not in shared memory", where);
  }
  if (source_bytes) access(global, static_cast<size_t>(source_bytes), Kind::read, site);
  access(target, static_cast<size_t>(bytes), Kind::write, site_of(where));
  std::memset(target, 0xFF, static_cast<size_t>(bytes));
  std::memset(&engine.shared.in_flight[shared_offset(target)], 1, static_cast<size_t>(bytes));
  fiber.open_copies.push_back(
      {target, static_cast<const char*>(global), bytes, source_bytes, site_of(where)});
}

void copy_async_commit() {
  Fiber& fiber = *engine.current;
  fiber.copy_groups.push_back(std::move(fiber.open_copies));
  fiber.open_copies.clear();
}

void copy_async_wait(int pending) {
  Fiber& fiber = *engine.current;
  while (static_cast<int>(fiber.copy_groups.size()) > pending) {
    for (const Copy& copy : fiber.copy_groups.front()) {
      const size_t used = static_cast<size_t>(copy.used), bytes = static_cast<size_t>(copy.bytes);
      std::memset(&engine.shared.in_flight[shared_offset(copy.target)], 0, bytes);
      std::memcpy(copy.target, copy.source, used);
      std::memset(copy.target + used, 0, bytes - used);
      // The data are the waiting thread's own write, of this moment.
      access(copy.target, bytes, Kind::write, copy.site, false);
    }
    fiber.copy_groups.pop_front();
    ++engine.progress;
  }
}

void check_copies_waited(Fiber& fiber) {
  const std::vector<Copy>* open = fiber.open_copies.empty() ? nullptr : &fiber.open_copies;
  for (const auto& group : fiber.copy_groups) {
    if (!group.empty()) open = &group;
  }
  if (!open) return;
  const uint32_t site = open->front().site;
  complain("copy in flight", site,
           "a thread ends with copies that it never waited for, issued at " + describe(site),
           {site});
}

}  // namespace emulator
