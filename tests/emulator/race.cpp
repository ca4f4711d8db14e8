// The happens-before detector: vector clocks in the manner of Flanagan and Freund 2009 (FastTrack).
#include <algorithm>

#include "emulator/state.h"

namespace emulator {
namespace {

size_t slots() { return static_cast<size_t>(engine.threads + kAgents); }

void raise(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size(), 0);
  for (size_t i = 0; i < other.size(); i++) clock[i] = std::max(clock[i], other[i]);
}

void add(Knowledge& sum, const Knowledge& part) {
  raise(sum.seen, part.seen);
  if (!part.fenced.empty()) raise(sum.fenced, part.fenced);
  for (const auto& [block, clock] : part.blocks) {
    auto& known = sum.blocks[block];
    if (!known) {
      known = clock;
    } else if (known != clock) {
      Clock both = *known;
      raise(both, *clock);
      known = std::make_shared<const Clock>(std::move(both));
    }
  }
}

// Knowledge of another block, as a thread of this one sees it after an acquire.
Known from_other_block(uint32_t block, const Known& known) {
  auto seen = std::make_shared<Knowledge>();
  seen->blocks = known->blocks;
  seen->blocks[block] = std::make_shared<const Clock>(known->seen);
  return seen;
}

bool known_across_blocks(const Access& access, uint32_t block, const Fiber& fiber) {
  if (!fiber.known) return false;
  const auto it = fiber.known->blocks.find(block);
  return it != fiber.known->blocks.end() && access.slot < it->second->size() &&
         (*it->second)[access.slot] >= access.clock;
}

void complain_race(const char* space, const char* what, uint32_t site, const Access& other,
                   const char* between) {
  complain(space, uint64_t(site) << 32 | other.site,
           std::string(what) + " at " + describe(site) + " against " +
               (other.slot < engine.threads ? "thread " + std::to_string(other.slot)
                                            : std::string("an asynchronous unit")) +
               " at " + describe(other.site) + ", " + between,
           {site, other.site});
}

// A cell that another block has touched in this launch.
void check_other_block(Cell& cell, const Fiber& fiber, Kind kind, uint32_t site) {
  const bool atomic = is_atomic(kind);
  const char* between = "blocks that nothing orders";
  if (cell.write.clock && !(atomic && cell.write.atomic) &&
      !known_across_blocks(cell.write, cell.block, fiber)) {
    complain_race("race between blocks", writes(kind) ? "write after write" : "read after write",
                  site, cell.write, between);
  }
  if (!writes(kind)) return;
  for (const Access& read : cell.reads) {
    if (read.clock && !(atomic && read.atomic) && !known_across_blocks(read, cell.block, fiber)) {
      complain_race("race between blocks", "write after read", site, read, between);
    }
  }
}

void remember_read(Cell& cell, const Access& me) {
  Access& last = cell.reads[0];
  if (last.clock && last.slot != me.slot) cell.reads[last.slot / 32 == me.slot / 32 ? 1 : 2] = last;
  last = me;
}

std::unordered_map<uint64_t, uint32_t>& releasing_blocks() {
  static std::unordered_map<uint64_t, uint32_t> blocks;
  return blocks;
}

void release_to(const void* flag, const Known& known) {
  const auto address = reinterpret_cast<uint64_t>(flag);
  Known& there = engine.released[address];
  uint32_t& block = releasing_blocks()[address];
  if (!there || block != engine.block_number) {
    // What the flag carried from another block goes on with it.
    Known before = there ? from_other_block(block, there) : nullptr;
    there = before ? merge({{known, -1, 0}, {before, -1, 0}}) : known;
  } else {
    there = merge({{there, -1, 0}, {known, -1, 0}});
  }
  block = engine.block_number;
}

Known released_at(const void* flag) {
  const auto address = reinterpret_cast<uint64_t>(flag);
  const auto it = engine.released.find(address);
  if (it == engine.released.end()) return nullptr;
  const uint32_t block = releasing_blocks()[address];
  return block == engine.block_number ? it->second : from_other_block(block, it->second);
}

// With the fiber's own clock included.
Known everything_of(Fiber& fiber) { return merge({moment_of(fiber)}); }

}  // namespace

Known merge(const std::vector<Moment>& moments) {
  auto sum = std::make_shared<Knowledge>();
  sum->seen.resize(slots(), 0);
  const Knowledge* previous = nullptr;
  for (const Moment& moment : moments) {
    if (moment.known && moment.known.get() != previous) add(*sum, *moment.known);
    previous = moment.known.get();
  }
  for (const Moment& moment : moments) {
    if (moment.slot >= 0) {
      sum->seen[moment.slot] = std::max(sum->seen[moment.slot], moment.clock);
    }
  }
  return sum;
}

Moment moment_of(Fiber& fiber) { return {fiber.known, fiber.slot, fiber.clock++}; }

void acquire(Fiber& fiber, const Known& known) {
  if (!known || known == fiber.known) return;
  fiber.known = fiber.known ? merge({{fiber.known, -1, 0}, {known, -1, 0}}) : known;
}

void join(const std::vector<Fiber*>& fibers) {
  std::vector<Moment> moments;
  for (Fiber* fiber : fibers) moments.push_back(moment_of(*fiber));
  const Known known = merge(moments);
  for (Fiber* fiber : fibers) fiber->known = known;
}

int new_agent() {
  // Beyond the last slot agents share one: an order that does not hold may then pass unseen, but
  // none is reported wrongly.
  const int agent = std::min(engine.agents, kAgents - 1);
  engine.agents++;
  return engine.threads + agent;
}

Moment agent_moment(int slot, const Known& known) {
  return {known, slot, ++engine.agent_clock[slot - engine.threads]};
}

void reset_clocks() {
  engine.agents = 0;
  engine.agent_clock.assign(kAgents, 0);
}

bool happened_before(const Access& access, const Fiber& fiber) {
  return access.clock == 0 || access.slot == fiber.slot ||
         (fiber.known && access.slot < fiber.known->seen.size() &&
          access.clock <= fiber.known->seen[access.slot]);
}

bool fenced_before(const Access& access, const Fiber& fiber) {
  return access.clock == 0 || access.async ||
         (fiber.known && access.slot < fiber.known->fenced.size() &&
          access.clock <= fiber.known->fenced[access.slot]);
}

void check_race(Cell& cell, Fiber& fiber, Kind kind, uint32_t site, const char* space) {
  check_race(cell, fiber, kind,
             {fiber.clock, static_cast<uint16_t>(fiber.slot), is_atomic(kind), false, site}, space);
}

void check_race(Cell& cell, const Fiber& fiber, Kind kind, const Access& me, const char* space) {
  const bool atomic = is_atomic(kind);
  if (cell.block != engine.block_number) {
    if (cell.block) check_other_block(cell, fiber, kind, me.site);
    cell = {};
    cell.block = engine.block_number;
  }
  const char* between = "without a barrier between them";
  if (!(atomic && cell.write.atomic) && !happened_before(cell.write, fiber)) {
    complain_race(space, writes(kind) ? "write after write" : "read after write", me.site,
                  cell.write, between);
  } else if (me.async && !fenced_before(cell.write, fiber)) {
    complain_race("proxy fence missing", writes(kind) ? "write after write" : "read after write",
                  me.site, cell.write, "without a fence_async between them");
  }
  if (!writes(kind)) return remember_read(cell, me);
  for (Access& read : cell.reads) {
    if (!(atomic && read.atomic) && !happened_before(read, fiber)) {
      complain_race(space, "write after read", me.site, read, between);
    }
    read = {};
  }
  cell.write = me;
}

void store_release(void* p, const void* value, size_t bytes, Where where) {
  Fiber& fiber = *engine.current;
  access(p, bytes, Kind::atomic_write, site_of(where), false);
  release_to(p, everything_of(fiber));
  __builtin_memcpy(p, value, bytes);
  ++engine.progress;
}

void load_acquire(const void* p, void* value, size_t bytes, Where where) {
  Fiber& fiber = *engine.current;
  access(p, bytes, Kind::atomic_read, site_of(where), false);
  acquire(fiber, released_at(p));
  __builtin_memcpy(value, p, bytes);
}

void atomic(void* p, size_t bytes, Where where) {
  Fiber& fiber = *engine.current;
  ++engine.report.counters.atomics;
  access(p, bytes, Kind::update, site_of(where), false);
  if (const Known known = released_at(p)) {
    fiber.read_before_fence =
        fiber.read_before_fence ? merge({{fiber.read_before_fence, -1, 0}, {known, -1, 0}}) : known;
  }
  if (fiber.released_by_fence) release_to(p, fiber.released_by_fence);
  ++engine.progress;
}

// What was written before the fence is known to whoever reads an atomic that is written after it.
void thread_fence() {
  Fiber& fiber = *engine.current;
  acquire(fiber, fiber.read_before_fence);
  fiber.read_before_fence = nullptr;
  fiber.released_by_fence = everything_of(fiber);
}

}  // namespace emulator
