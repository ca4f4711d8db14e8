// Fibers, blocks and the order in which threads run.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "emulator/state.h"

// Saves the callee-saved registers on the old stack and takes those of the new one. No system call,
// unlike ucontext: a launch switches millions of times.
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");

namespace emulator {

Engine engine;

namespace {

std::vector<char*>& stacks() {
  static std::vector<char*> all;
  return all;
}

char* new_stack() {
  void* p = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("emulator: no room for the stack of a thread");
    std::abort();
  }
  mprotect(p, kPage, PROT_NONE);
  return static_cast<char*>(p) + kPage;
}

void fiber_main() {
  engine.body(engine.context);
  Fiber& fiber = *engine.current;
  check_copies_waited(fiber);
  check_hopper_at_exit(fiber);
  fiber.status = Status::done;
  --engine.alive;
  ++engine.progress;
  switch_to_scheduler();
}

// A stack from which emulator_switch returns into fiber_main.
void prepare(Fiber& fiber) {
  auto* top = reinterpret_cast<uint64_t*>(fiber.stack + kStackBytes) - 2;
  top[0] = reinterpret_cast<uint64_t>(&fiber_main);
  top[1] = 0;
  std::memset(top - 6, 0, 48);
  fiber.stack_pointer = top - 6;
}

bool can_run(const Fiber& fiber) {
  return fiber.status == Status::ready ||
         (fiber.status == Status::spinning && fiber.progress_seen != engine.progress);
}

void resume(Fiber& fiber) {
  fiber.status = Status::ready;
  engine.current = &fiber;
  ++engine.report.counters.switches;
  emulator_switch(&engine.scheduler_stack, fiber.stack_pointer);
  engine.current = nullptr;
}

// Threads [begin, end) of the order until none of them can go on.
bool run_threads(const std::vector<int>& order, int begin, int end) {
  bool any = false;
  for (bool ran = true; ran && !engine.aborted;) {
    ran = false;
    for (int i = begin; i < end && !engine.aborted; i++) {
      Fiber& fiber = engine.fibers[order[i]];
      if (!can_run(fiber)) continue;
      resume(fiber);
      ran = any = true;
    }
  }
  return any;
}

void land_one() {
  const size_t i = engine.options.seed ? random_below(engine.landings.size()) : 0;
  auto landing = std::move(engine.landings[i]);
  engine.landings.erase(engine.landings.begin() + static_cast<ptrdiff_t>(i));
  landing.work();
  ++engine.progress;
}

// One pass over all threads. Without a seed a warp runs until all its lanes wait; with one, threads
// take turns in a random order, and asynchronous work lands in between.
bool run_pass(std::vector<int>& order) {
  if (engine.options.seed) {
    std::shuffle(order.begin(), order.end(), engine.random);
    while (!engine.landings.empty() && random_below(4) == 0 && !engine.aborted) land_one();
    return run_threads(order, 0, engine.threads);
  }
  bool any = false;
  for (int first = 0; first < engine.threads && !engine.aborted; first += 32) {
    any |= run_threads(order, first, std::min(first + 32, engine.threads));
  }
  return any;
}

void report_deadlock() {
  std::map<std::string, int> counts;
  for (const Fiber& fiber : engine.fibers) {
    const bool done = fiber.status == Status::done;
    counts[done ? "have ended"
                : std::string("wait in ") + fiber.waits_in + " at " + describe(fiber.waits_at) +
                      missing_at(fiber)]++;
  }
  std::string text;
  std::vector<uint32_t> sites;
  for (const auto& [what, count] : counts) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " threads " + what;
  }
  for (const Fiber& fiber : engine.fibers) {
    if (fiber.status == Status::done) continue;
    const uint32_t site = site_of(fiber.waits_at);
    if (std::find(sites.begin(), sites.end(), site) == sites.end()) sites.push_back(site);
  }
  complain("deadlock", 0, text, sites);
  engine.aborted = true;
}

void prepare_block() {
  const int threads = engine.threads;
  Shared& shared = engine.shared;
  std::memset(shared.begin, 0xFF, shared.bytes);
  std::fill(shared.written.begin(), shared.written.end(), 0);
  std::fill(shared.in_flight.begin(), shared.in_flight.end(), 0);
  std::fill(shared.busy.begin(), shared.busy.end(), 0);
  std::fill(shared.cells.begin(), shared.cells.end(), Cell{});
  engine.barriers.clear();
  engine.landings.clear();
  engine.warps.assign((threads + 31) / 32, {});
  engine.fibers.clear();
  engine.fibers.resize(threads);
  engine.alive = threads;
  reset_clocks();
  reset_hopper();
  while (static_cast<int>(stacks().size()) < threads) stacks().push_back(new_stack());
  for (int i = 0; i < threads; i++) {
    Fiber& fiber = engine.fibers[i];
    const unsigned x = engine.block.x, y = engine.block.y, n = static_cast<unsigned>(i);
    fiber.stack = stacks()[i];
    fiber.slot = i;
    fiber.lane = i & 31;
    fiber.warp = i >> 5;
    fiber.index = {n % x, n / x % y, n / (x * y)};
    prepare(fiber);
  }
}

void run_block() {
  prepare_block();
  std::vector<int> order(engine.threads);
  std::iota(order.begin(), order.end(), 0);
  while (engine.alive && !engine.aborted) {
    if (run_pass(order) || engine.aborted) continue;
    if (engine.landings.empty()) {
      report_deadlock();
    } else {
      land_one();
    }
  }
  if (!engine.aborted && !engine.landings.empty()) {
    const uint32_t site = engine.landings.front().site;
    complain("copy in flight", site,
             "a block ends before the copy at " + describe(site) + " has completed", {site});
  }
  if (engine.options.counters) finish_requests();
}

void prepare_launch(dim3 grid, dim3 block, size_t shared_bytes, const Options& options) {
  engine.grid = grid;
  engine.block = block;
  engine.options = options;
  engine.report = {};
  engine.reported.clear();
  engine.aborted = engine.muted = false;
  engine.random.seed(options.seed);
  engine.threads = static_cast<int>(block.x * block.y * block.z);
  engine.block_number = 0;
  engine.released.clear();
  Shared& shared = engine.shared;
  if (!shared.begin) {
    shared.begin = static_cast<char*>(mmap(nullptr, kMostShared + kPage, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  shared.bytes = shared_bytes;
  shared.written.resize(shared_bytes);
  shared.in_flight.resize(shared_bytes);
  shared.busy.resize(shared_bytes);
  shared.cells.resize((shared_bytes + kCellBytes - 1) / kCellBytes);
  for (auto& [begin, buffer] : engine.buffers) {
    buffer.touched.assign((buffer.bytes + 31) / 32, 0);
    buffer.cells.assign(options.races ? (buffer.bytes + kCellBytes - 1) / kCellBytes : 0, {});
  }
}

bool check_launch(dim3 grid, size_t shared_bytes) {
  const bool good = engine.threads >= 1 && engine.threads <= 1024 && grid.x >= 1 && grid.y >= 1 &&
                    grid.z >= 1 && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535 &&
                    shared_bytes <= kMostShared;
  if (!good) {
    complain("launch", 0,
             std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                 std::to_string(grid.z) + " blocks of " + std::to_string(engine.threads) +
                 " threads with " + std::to_string(shared_bytes) +
                 " bytes of shared memory are beyond what a device takes",
             {});
  }
  return good;
}

}  // namespace

void release() {
  reset();
  engine.fibers.clear();
  for (char* stack : stacks()) munmap(stack - kPage, kStackBytes + kPage);
  stacks().clear();
  if (engine.shared.begin) munmap(engine.shared.begin, kMostShared + kPage);
  engine.shared.begin = nullptr;
}

uint64_t random_below(uint64_t bound) { return engine.random() % bound; }

void switch_to_scheduler() {
  Fiber* fiber = engine.current;
  emulator_switch(&fiber->stack_pointer, engine.scheduler_stack);
}

void block_on(const char* what, Where where) {
  Fiber* fiber = engine.current;
  fiber->status = Status::blocked;
  fiber->waits_in = what;
  fiber->waits_at = where;
  switch_to_scheduler();
}

void wake(Fiber& fiber) {
  fiber.status = Status::ready;
  ++engine.progress;
}

void spin(Where where) {
  Fiber* fiber = engine.current;
  fiber->status = Status::spinning;
  fiber->waits_in = "a spin";
  fiber->waits_at = where;
  fiber->progress_seen = engine.progress;
  switch_to_scheduler();
}

void land_later(std::function<void()> work, uint32_t site) {
  engine.landings.push_back({std::move(work), site});
}

Report run(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const Options& options,
           void (*body)(const void*), const void* context) {
  (void)kernel;
  const auto start = std::chrono::steady_clock::now();
  prepare_launch(grid, block, shared_bytes, options);
  engine.body = body;
  engine.context = context;
  if (check_launch(grid, shared_bytes)) {
    for (unsigned z = 0; z < grid.z; z++) {
      for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x = 0; x < grid.x && !engine.aborted; x++) {
          engine.block_index = {x, y, z};
          ++engine.block_number;
          run_block();
        }
      }
    }
  }
  for (auto& [begin, buffer] : engine.buffers) {
    buffer.initialised =
        buffer.initialised || std::all_of(buffer.written.begin(), buffer.written.end(),
                                          [](uint8_t written) { return written != 0; });
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  engine.report.seconds = taken.count();
  return engine.report;
}

uint3 thread_index() { return engine.current->index; }
uint3 block_index() { return engine.block_index; }
dim3 block_size() { return engine.block; }
dim3 grid_size() { return engine.grid; }
int lane_index() { return engine.current->lane; }

}  // namespace emulator
