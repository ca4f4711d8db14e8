// What the parts of the engine share. Everything runs on one OS thread: blocks one after another,
// and of a block one fiber at a time.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emulator/emulator.h"

namespace emulator {

constexpr size_t kStackBytes = 128 << 10, kPage = 4096;
constexpr size_t kArenaBytes = size_t(1) << 36;
constexpr size_t kMostShared = 227 << 10;  // what a block can have on sm_90
constexpr size_t kCellBytes = 2;           // race detection knows memory in cells of this size
constexpr int kAgents = 64;  // clock slots after the threads': asynchronous units of a block

// ---- source positions ------------------------------------------------------------------------

// A place in a kernel: an address in its code or a position that a word has passed on.
struct Site {
  uint64_t code = 0;
  Where where{};
};
uint32_t site_of_code(uint64_t code);
uint32_t site_of(Where where);
std::string describe(uint32_t site);  // file:line
std::string describe(Where where);

// ---- happens-before --------------------------------------------------------------------------

using Clock = std::vector<uint32_t>;  // by slot: threads, then agents

// What a thread knows to have happened, immutable and shared among threads.
struct Knowledge {
  Clock seen;
  Clock fenced;  // what a proxy fence has made visible to asynchronous units; may be empty
  std::map<uint32_t, std::shared_ptr<const Clock>> blocks;  // of other blocks
};
using Known = std::shared_ptr<const Knowledge>;

// A thread's (or agent's) knowledge at one moment, itself included.
struct Moment {
  Known known;
  int slot = 0;
  uint32_t clock = 0;
};

struct Access {
  uint32_t clock = 0;  // 0: none
  uint16_t slot = 0;
  bool atomic = false;
  bool async = false;  // through the asynchronous proxy
  uint32_t site = 0;
};
// The last write, and of the reads since then the last one, another lane's and another warp's.
struct Cell {
  Access write, reads[3];
  uint32_t block = 0;
};

// ---- threads ---------------------------------------------------------------------------------

struct Copy {  // cp.async in flight
  char* target;
  const char* source;
  int bytes, used;
  uint32_t site;
};

enum class Status : uint8_t { ready, blocked, spinning, done };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  uint3 index{};
  int slot = 0, lane = 0, warp = 0;
  Status status = Status::ready;
  const char* waits_in = "";
  Where waits_at{};
  uint64_t progress_seen = 0;

  Known known;
  uint32_t clock = 1;
  Known released_by_fence;  // what the last __threadfence covers
  Known read_before_fence;  // what relaxed atomics have read since then

  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> copy_groups;
  // By site, since the warp's lanes last came together: the k-th execution pairs with other lanes'
  // k-th.
  struct Executions {
    uint64_t meeting = 0;
    uint32_t count = 0;
  };
  std::vector<Executions> executions;

  // Registers that a wgmma in flight uses: on this fiber's stack.
  struct Range {
    const char* begin;
    size_t bytes;
  };
  std::vector<Range> busy_registers;
  bool watches_registers = false;  // once there has been a wgmma_fence
};

struct Meeting {  // lanes on their way into one collective
  const char* kind = nullptr;
  Where where{};
  uint32_t mask = 0, arrived = 0;
  Lanes lanes{};
};
struct Request {  // one warp-wide memory request
  uint32_t mask = 0;
  uint64_t address[32];
};
struct RequestLog {
  uint64_t meeting = 0, first = 0;
  std::deque<Request> open;
};
struct Warp {
  uint64_t meeting_count = 0;  // how often all its lanes have come together
  std::vector<Meeting> meetings;
  std::vector<RequestLog> log;  // by site
};

struct NamedBarrier {
  int arrived = 0, needed = 0;
  Where where{};
  std::vector<Fiber*> waiting;
  std::vector<Moment> moments;
};

// ---- memory ----------------------------------------------------------------------------------

struct Buffer {
  char* begin;
  size_t bytes;
  std::string name;
  bool initialised;
  std::vector<uint8_t> written;  // by byte, unless initialised
  std::vector<Cell> cells;
  std::vector<uint8_t> touched;  // by sector: 1 read, 2 written
};

struct Shared {
  char* begin = nullptr;
  size_t bytes = 0;
  std::vector<uint8_t> written, in_flight;  // by byte
  std::vector<uint8_t> busy;                // by byte: read by an asynchronous unit right now
  std::vector<Cell> cells;
};

// update: an atomic read-modify-write.
enum class Kind : uint8_t { read, write, atomic_read, atomic_write, update };
constexpr bool is_atomic(Kind kind) { return kind >= Kind::atomic_read; }
constexpr bool reads(Kind kind) {
  return kind == Kind::read || kind == Kind::atomic_read || kind == Kind::update;
}
constexpr bool writes(Kind kind) { return kind != Kind::read && kind != Kind::atomic_read; }

// ---- the engine ------------------------------------------------------------------------------

struct Landing {  // asynchronous work that may complete at any time
  std::function<void()> work;
  uint32_t site;  // of what started it
};

struct SiteTraffic {
  uint8_t bytes = 0;
  bool write = false, shared = false;
};

struct Engine {
  // launch
  dim3 grid, block;
  Options options;
  void (*body)(const void*) = nullptr;
  const void* context = nullptr;
  Report report;
  std::set<std::pair<std::string, uint64_t>> reported;
  std::mt19937 random;
  bool aborted = false, muted = false;

  // block
  uint3 block_index{};
  uint32_t block_number = 0;  // from 1
  int threads = 0, alive = 0;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::map<int, NamedBarrier> barriers;
  Shared shared;
  Fiber* current = nullptr;
  void* scheduler_stack = nullptr;
  uint64_t progress = 0;  // grows with everything that can end a wait
  std::vector<Landing> landings;
  std::vector<uint32_t> agent_clock;  // by agent
  int agents = 0;

  // device
  char* arena = nullptr;
  size_t arena_used = 0;
  std::map<char*, Buffer> buffers;
  Buffer* last_buffer = nullptr;
  std::unordered_map<uint64_t, Known> released;  // by address of a flag

  // sites
  std::vector<Site> sites{1};
  std::vector<SiteTraffic> site_traffic{1};
};
extern Engine engine;

// ---- report.cpp ------------------------------------------------------------------------------

// Adds a finding unless one of that kind and key is there; `sites` are put behind the text.
void complain(const char* kind, uint64_t key, const std::string& text,
              const std::vector<uint32_t>& sites);
[[noreturn]] void end_launch();  // from within a fiber
std::string thread_name(const Fiber& fiber);

// ---- scheduler.cpp ---------------------------------------------------------------------------

void switch_to_scheduler();
void block_on(const char* what, Where where);
void wake(Fiber& fiber);
void release();  // gives back what the engine has taken from the system
uint64_t random_below(uint64_t bound);
// Asynchronous work: runs at a later pass that depends on the seed, at the latest when no thread
// can go on. It runs with engine.current == nullptr.
void land_later(std::function<void()> work, uint32_t site);

// ---- race.cpp --------------------------------------------------------------------------------

Known merge(const std::vector<Moment>& moments);
Moment moment_of(Fiber& fiber);                  // and starts the fiber's next clock
void acquire(Fiber& fiber, const Known& known);  // the fiber knows all of that from now on
void join(const std::vector<Fiber*>& fibers);
int new_agent();                                    // a clock slot
Moment agent_moment(int slot, const Known& known);  // the agent's next clock, with what it knows
bool happened_before(const Access& access, const Fiber& fiber);
bool fenced_before(const Access& access, const Fiber& fiber);  // for asynchronous accesses
// Checks one access against a cell and records it.
void check_race(Cell& cell, Fiber& fiber, Kind kind, uint32_t site, const char* space);
// The same for an access that an agent makes on behalf of the fiber.
void check_race(Cell& cell, const Fiber& fiber, Kind kind, const Access& me, const char* space);
void reset_clocks();

// ---- memory.cpp ------------------------------------------------------------------------------

Buffer* find_buffer(const char* p);
bool is_shared(const void* p);
size_t shared_offset(const void* p);
// One access of the current fiber; `counted`: as a warp request.
void access(const void* p, size_t bytes, Kind kind, uint32_t site, bool counted = true);

// ---- traffic.cpp -----------------------------------------------------------------------------

void count_access(Fiber& fiber, uint64_t address, size_t bytes, bool write, bool shared,
                  uint32_t site);
void count_distinct(Buffer& buffer, size_t offset, size_t bytes, bool write);
void finish_requests();

// ---- async.cpp -------------------------------------------------------------------------------

void check_copies_waited(Fiber& fiber);

// ---- mma.cpp ---------------------------------------------------------------------------------

float widen_operand(uint32_t bits, MmaType type);
// c + sum of a[k] b[k], added up as the options say.
float dot_product(const float* a, int a_stride, const float* b, int b_stride, int count, float c);

// ---- mbarrier.cpp, tma.cpp, wgmma.cpp --------------------------------------------------------

void reset_hopper();                      // at the start of a block
void check_hopper_at_exit(Fiber& fiber);  // at the end of a thread
// An access to an array of the thread's own, which stands for registers.
void touch_registers(const Fiber& fiber, const char* p, size_t bytes, uint32_t site);
std::string missing_at(const Fiber& fiber);  // for a report: what a wait at an mbarrier lacks

}  // namespace emulator
