// What the asynchronous units have in common: whom they act for, and how their accesses to memory
// are checked.
#include "emulator/hopper.h"

#include <algorithm>

namespace emulator {
namespace {

// To the smallest of both, but for one slot.
void lower(Clock& least, const Clock& other, int except) {
  for (size_t i = 0; i < least.size(); i++) {
    if (static_cast<int>(i) != except)
      least[i] = std::min(least[i], i < other.size() ? other[i] : 0);
  }
}

std::string bytes_text(size_t offset, size_t bytes) {
  return std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " of shared memory";
}

void complain_at(const char* kind, const std::string& text, uint32_t site) {
  complain(kind, site, text + " at " + describe(site), {site});
}

}  // namespace

Fiber witness(const std::vector<Fiber*>& fibers) {
  auto common = std::make_shared<Knowledge>();
  const size_t slots = static_cast<size_t>(engine.threads) + kAgents;
  common->seen.assign(slots, UINT32_MAX);
  common->fenced.assign(slots, UINT32_MAX);
  static const Knowledge nothing;
  for (const Fiber* fiber : fibers) {
    const Knowledge& known = fiber->known ? *fiber->known : nothing;
    lower(common->seen, known.seen, fiber->slot);  // a thread knows its own doings
    lower(common->fenced, known.fenced, -1);       // but they need a proxy fence too
  }
  Fiber all;
  all.slot = -1;
  all.known = common;
  return all;
}

Fiber witness(Fiber& fiber) {
  Fiber one;
  one.slot = -1;
  one.known = merge({moment_of(fiber)});
  return one;
}

void acquire_agent(Fiber& fiber, int slot, uint32_t clock) {
  acquire(fiber, merge({{nullptr, slot, clock}}));
}

size_t swizzled(size_t offset, Swizzle swizzle) {
  const size_t row = offset >> 7, chunks = span_of(swizzle) / 16;
  return offset ^ row % chunks << 4;
}

void access_shared_async(size_t offset, size_t bytes, bool write, const Fiber& starter,
                         const Access& me) {
  Shared& shared = engine.shared;
  for (size_t i = offset; i < offset + bytes; i++) {
    if (shared.in_flight[i]) {
      complain_at("copy in flight",
                  bytes_text(offset, bytes) + " that a copy in flight writes are used", me.site);
      return;
    }
    if (write && shared.busy[i]) {
      complain_at("operand in flight",
                  bytes_text(offset, bytes) + " that an asynchronous unit still reads are written",
                  me.site);
      return;
    }
    if (!write && !shared.written[i]) {
      complain_at("uninitialised", bytes_text(offset, bytes) + " are read", me.site);
      return;
    }
  }
  if (!engine.options.races) return;
  for (size_t i = offset / kCellBytes; i <= (offset + bytes - 1) / kCellBytes; i++) {
    check_race(shared.cells[i], starter, write ? Kind::write : Kind::read, me, "shared race");
  }
}

void access_global_async(const char* p, size_t bytes, bool write, const Fiber& starter,
                         const Access& me) {
  Buffer* buffer = find_buffer(p);
  if (!buffer || p + bytes > buffer->begin + buffer->bytes) {
    complain_at("out of bounds",
                "a box of a tensor map reaches beyond " +
                    (buffer ? buffer->name + " of " + std::to_string(buffer->bytes) + " bytes"
                            : std::string("all buffers")),
                me.site);
    end_launch();
  }
  const auto offset = static_cast<size_t>(p - buffer->begin);
  for (size_t i = offset; !write && !buffer->initialised && i < offset + bytes; i++) {
    if (buffer->written[i]) continue;
    complain_at("uninitialised", buffer->name + " at offset " + std::to_string(i) + " is read",
                me.site);
    break;
  }
  if (!engine.options.races) return;
  for (size_t i = offset / kCellBytes; i <= (offset + bytes - 1) / kCellBytes; i++) {
    check_race(buffer->cells[i], starter, write ? Kind::write : Kind::read, me, "global race");
  }
}

uint32_t shared_address(const void* p, Where where) {
  if (!is_shared(p)) fail("out of bounds", "the address is not in shared memory", where);
  return static_cast<uint32_t>(shared_offset(p));
}

void reset_hopper() {
  reset_mbarriers();
  reset_stores();
  reset_registers();
  reset_warpgroups();
  reset_register_pool();
}

void check_hopper_at_exit(Fiber& fiber) {
  check_stores_waited(fiber);
  check_products_waited(fiber);
  check_settings_complete(fiber);
}

}  // namespace emulator
