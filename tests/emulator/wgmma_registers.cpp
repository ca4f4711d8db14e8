// Registers that products of a warpgroup read and write while the thread goes on: arrays on the
// thread's stack. Between a fence that lists them and a wait that lists them nobody touches them.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "emulator/hopper.h"

namespace emulator {
namespace {

struct Held {
  char* begin;
  size_t bytes;
  uint32_t group;             // of products, counted from the start of the thread
  std::vector<float> values;  // of accumulators
};

struct Products {  // of one thread
  std::vector<Held> held;
  bool open = false;             // products behind the last commit
  uint32_t site = 0;             // of the last product
  std::vector<uint32_t> clocks;  // by committed group
  uint32_t through = 0;          // groups that were waited for
};

// By word of a stack, where it was touched last since a fence listed it.
struct Touches {
  uint32_t* sites = nullptr;
  size_t low = kStackBytes / 4, high = 0;
};

std::map<int, Products>& all_products() {
  static std::map<int, Products> products;
  return products;
}

std::vector<Touches>& all_touches() {
  static std::vector<Touches> touches;
  return touches;
}

void clear(Touches& touches, size_t low, size_t high) {
  if (low < high) std::memset(touches.sites + low, 0, (high - low) * sizeof(uint32_t));
}

void check_on_stack(const Fiber& fiber, const void* begin, size_t bytes, Where where) {
  const auto offset = static_cast<size_t>(static_cast<const char*>(begin) - fiber.stack);
  if (offset < kStackBytes && offset + bytes <= kStackBytes) return;
  fail("wgmma registers", "what stands for registers is no local array of the thread", where);
}

size_t word_of(const Fiber& fiber, const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - fiber.stack) / 4;
}

bool is_listed(const Held& held, const Registers* listed, int count) {
  return std::any_of(listed, listed + count, [&](const Registers& r) {
    const char* begin = static_cast<const char*>(r.begin);
    return held.begin >= begin && held.begin + held.bytes <= begin + r.bytes;
  });
}

void hold(Fiber& fiber, Held held) {
  Products& products = all_products()[fiber.slot];
  held.group = static_cast<uint32_t>(products.clocks.size());
  products.open = true;
  auto& all = products.held;
  const auto same = std::find_if(all.begin(), all.end(),
                                 [&](const Held& other) { return other.begin == held.begin; });
  if (same == all.end()) {
    fiber.busy_registers.push_back({held.begin, held.bytes});
    all.push_back(std::move(held));
  } else {
    *same = std::move(held);
  }
}

// The lanes of a warp do it together.
void meet(const char* word, Where where) {
  collective(word, 0xffffffffu, nullptr, nullptr, nullptr, where);
}

}  // namespace

void reset_registers() {
  all_products().clear();
  for (Touches& touches : all_touches()) {
    clear(touches, touches.low, touches.high);
    touches = {touches.sites, kStackBytes / 4, 0};
  }
}

void touch_registers(const Fiber& fiber, const char* p, size_t bytes, uint32_t site) {
  Touches& touches = all_touches()[static_cast<size_t>(fiber.slot)];
  const size_t first = word_of(fiber, p), last = word_of(fiber, p + bytes - 1);
  std::fill(touches.sites + first, touches.sites + last + 1, site);
  touches.low = std::min(touches.low, first);
  touches.high = std::max(touches.high, last + 1);
}

void wgmma_fence(const Registers* listed, int count, Where where) {
  meet("wgmma_fence", where);
  Fiber& fiber = *engine.current;
  const auto slot = static_cast<size_t>(fiber.slot);
  if (all_touches().size() <= slot) all_touches().resize(slot + 1);
  Touches& touches = all_touches()[slot];
  if (!touches.sites) {
    touches.sites = static_cast<uint32_t*>(std::calloc(kStackBytes / 4, sizeof(uint32_t)));
  }
  fiber.watches_registers = true;  // what was touched before the first fence has passed it
  for (const Registers* r = listed; r < listed + count; r++) {
    if (r->bytes == 0) continue;
    check_on_stack(fiber, r->begin, r->bytes, where);
    clear(touches, word_of(fiber, r->begin), word_of(fiber, r->begin) + r->bytes / 4);
  }
}

void check_fenced(const Fiber& fiber, const void* begin, size_t bytes, Where where) {
  if (!fiber.watches_registers) fail("wgmma fence", "a wgmma before the first wgmma_fence", where);
  check_on_stack(fiber, begin, bytes, where);
  const uint32_t* sites = all_touches()[static_cast<size_t>(fiber.slot)].sites;
  const size_t first = word_of(fiber, begin);
  const uint32_t* touched =
      std::find_if(sites + first, sites + first + bytes / 4, [](uint32_t site) { return site; });
  if (touched == sites + first + bytes / 4) return;
  const uint32_t here = site_of(where);
  complain("wgmma fence", uint64_t(here) << 32 | *touched,
           "registers of the wgmma at " + describe(where) + " are touched at " +
               describe(*touched) + " and not listed in a wgmma_fence since",
           {here, *touched});
}

void read_accumulator(const Fiber& fiber, const float* d, int count, float* values, Where where) {
  const auto* begin = reinterpret_cast<const char*>(d);
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  for (const Held& held : all_products()[fiber.slot].held) {
    if (held.begin >= begin + bytes || begin >= held.begin + held.bytes) continue;
    if (held.begin != begin || held.bytes != bytes || held.values.empty()) {
      fail("registers in flight", "a wgmma of another shape uses registers of one in flight",
           where);
    }
    std::copy(held.values.begin(), held.values.end(), values);
    return;
  }
  std::copy(d, d + count, values);
}

void hold_accumulator(Fiber& fiber, float* d, int count, const float* values, Where where) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  hold(fiber, {reinterpret_cast<char*>(d), bytes, 0, {values, values + count}});
  std::memset(d, 0xFF, bytes);
  all_products()[fiber.slot].site = site_of(where);
}

void hold_operand(Fiber& fiber, const uint32_t* a) {
  hold(fiber, {reinterpret_cast<char*>(const_cast<uint32_t*>(a)), 16, 0, {}});
}

void wgmma_commit(Where where) {
  meet("wgmma_commit", where);
  Products& products = all_products()[engine.current->slot];
  products.clocks.push_back(last_product(*engine.current).clock);
  products.open = false;
}

void wgmma_wait(int pending, const Registers* listed, int count, Where where) {
  meet("wgmma_wait", where);
  Fiber& fiber = *engine.current;
  Products& products = all_products()[fiber.slot];
  const int64_t through = static_cast<int64_t>(products.clocks.size()) - pending;
  if (through > static_cast<int64_t>(products.through)) {
    products.through = static_cast<uint32_t>(through);
    if (engine.options.races) {
      acquire_agent(fiber, last_product(fiber).slot, products.clocks[products.through - 1]);
    }
  }
  fiber.busy_registers.clear();
  std::vector<Held> left;
  for (Held& held : products.held) {
    if (held.group < products.through && is_listed(held, listed, count)) {
      std::memcpy(held.begin, held.values.data(), held.values.size() * sizeof(float));
    } else {
      fiber.busy_registers.push_back({held.begin, held.bytes});
      left.push_back(std::move(held));
    }
  }
  products.held = std::move(left);
}

void check_products_waited(Fiber& fiber) {
  const auto it = all_products().find(fiber.slot);
  if (it == all_products().end()) return;
  if (it->second.open || it->second.through < it->second.clocks.size()) {
    const uint32_t site = it->second.site;
    complain("wgmma wait", site,
             "a thread ends without wgmma_commit and wgmma_wait for the wgmma at " + describe(site),
             {site});
  }
}

}  // namespace emulator
