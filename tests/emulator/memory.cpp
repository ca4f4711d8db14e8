// Device memory and the check of every access: bounds, alignment, initialisation, copies in flight.
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstring>

#include "emulator/state.h"

namespace emulator {
namespace {

std::string range_text(size_t offset, size_t bytes, size_t size) {
  return std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " of " +
         std::to_string(size);
}

const char* verb(Kind kind) { return writes(kind) ? "write" : "read"; }

[[noreturn]] void out_of_bounds(const std::string& text, uint32_t site) {
  complain("out of bounds", site, text + " at " + describe(site), {site});
  end_launch();
}

void check_alignment(const char* p, size_t bytes, uint32_t site) {
  if (bytes <= 16 && (bytes & (bytes - 1)) == 0 && reinterpret_cast<uint64_t>(p) % bytes) {
    complain("misaligned", site, std::to_string(bytes) + "-byte access at " + describe(site),
             {site});
  }
}

void check_shared_bytes(size_t offset, size_t bytes, Kind kind, uint32_t site) {
  Shared& shared = engine.shared;
  for (size_t i = offset; i < offset + bytes; i++) {
    if (shared.in_flight[i]) {
      return complain("copy in flight", site,
                      std::string(verb(kind)) + " at " + describe(site) +
                          " of shared memory that a copy in flight writes",
                      {site});
    }
    if (shared.busy[i] && writes(kind)) {
      return complain(
          "operand in flight", site,
          "write at " + describe(site) + " of shared memory that an asynchronous unit still reads",
          {site});
    }
    if (!reads(kind)) {
      shared.written[i] = 1;
    } else if (!shared.written[i]) {
      return complain("uninitialised", site,
                      "shared memory at offset " + std::to_string(i) + " read at " + describe(site),
                      {site});
    }
  }
}

void access_shared(const char* p, size_t bytes, Kind kind, uint32_t site, bool counted) {
  Shared& shared = engine.shared;
  Fiber& fiber = *engine.current;
  const size_t offset = static_cast<size_t>(p - shared.begin);
  if (offset + bytes > shared.bytes) {
    out_of_bounds(std::string(verb(kind)) + " of " + range_text(offset, bytes, shared.bytes) +
                      " of shared memory",
                  site);
  }
  check_alignment(p, bytes, site);
  check_shared_bytes(offset, bytes, kind, site);
  if (engine.options.races) {
    for (size_t i = offset / kCellBytes; i <= (offset + bytes - 1) / kCellBytes; i++) {
      check_race(shared.cells[i], fiber, kind, site, "shared race");
    }
  }
  if (engine.options.counters && counted) {
    count_access(fiber, offset, bytes, writes(kind), true, site);
  }
}

void check_written(Buffer& buffer, size_t offset, size_t bytes, Kind kind, uint32_t site) {
  if (buffer.initialised) return;
  for (size_t i = offset; i < offset + bytes; i++) {
    if (!reads(kind)) {
      buffer.written[i] = 1;
    } else if (!buffer.written[i]) {
      return complain(
          "uninitialised", site,
          buffer.name + " at offset " + std::to_string(i) + " read at " + describe(site), {site});
    }
  }
}

void access_global(const char* p, size_t bytes, Kind kind, uint32_t site, bool counted) {
  Fiber& fiber = *engine.current;
  Buffer* buffer = find_buffer(p);
  if (!buffer || p + bytes > buffer->begin + buffer->bytes) {
    out_of_bounds(
        std::string(verb(kind)) + " of " +
            (buffer ? range_text(static_cast<size_t>(p - buffer->begin), bytes, buffer->bytes) +
                          " of " + buffer->name
                    : std::to_string(bytes) + " bytes outside all buffers"),
        site);
  }
  const size_t offset = static_cast<size_t>(p - buffer->begin);
  check_alignment(p, bytes, site);
  check_written(*buffer, offset, bytes, kind, site);
  if (engine.options.races) {
    for (size_t i = offset / kCellBytes; i <= (offset + bytes - 1) / kCellBytes; i++) {
      check_race(buffer->cells[i], fiber, kind, site, "global race");
    }
  }
  if (!engine.options.counters || is_atomic(kind)) return;
  count_distinct(*buffer, offset, bytes, writes(kind));
  if (counted) {
    count_access(fiber, reinterpret_cast<uint64_t>(p), bytes, writes(kind), false, site);
  }
}

// Constants of the kernel's own library are readable, nothing else of the host is.
void access_host(const char* p, Kind kind, uint32_t site) {
  Dl_info info;
  if (!writes(kind) && dladdr(p, &info)) return;
  complain("host memory", site,
           std::string("the kernel ") + (writes(kind) ? "writes" : "reads") +
               " memory of the host at " + describe(site),
           {site});
  end_launch();
}

void check_registers(const Fiber& fiber, const char* p, size_t bytes, uint32_t site) {
  for (const Fiber::Range& range : fiber.busy_registers) {
    if (p < range.begin + range.bytes && p + bytes > range.begin) {
      complain("registers in flight", site,
               "registers of a wgmma in flight are touched at " + describe(site), {site});
      return;
    }
  }
}

void access_range(void* p, size_t bytes, Kind kind, uint64_t code) {
  for (size_t i = 0; i < bytes && !engine.muted; i += 16) {
    access(static_cast<char*>(p) + i, bytes - i < 16 ? bytes - i : 16, kind,
           site_of_code(code + i / 16));
  }
}

}  // namespace

bool is_shared(const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - engine.shared.begin) < kMostShared;
}

size_t shared_offset(const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - engine.shared.begin);
}

// The buffer that starts at or before p; p may lie behind its end.
Buffer* find_buffer(const char* p) {
  Buffer* last = engine.last_buffer;
  if (last && p >= last->begin && p < last->begin + last->bytes) return last;
  auto it = engine.buffers.upper_bound(const_cast<char*>(p));
  if (it == engine.buffers.begin()) return nullptr;
  return engine.last_buffer = &(--it)->second;
}

void access(const void* address, size_t bytes, Kind kind, uint32_t site, bool counted) {
  Fiber* fiber = engine.current;
  if (!fiber || bytes == 0) return;
  const char* p = static_cast<const char*>(address);
  if (static_cast<size_t>(p - fiber->stack) < kStackBytes) {  // locals: registers on the device
    if (!fiber->busy_registers.empty()) check_registers(*fiber, p, bytes, site);
    if (fiber->watches_registers) touch_registers(*fiber, p, bytes, site);
    return;
  }
  ++engine.report.counters.accesses;
  if (writes(kind)) ++engine.progress;
  if (is_shared(p)) {
    access_shared(p, bytes, kind, site, counted);
  } else if (static_cast<size_t>(p - engine.arena) < kArenaBytes) {
    access_global(p, bytes, kind, site, counted);
  } else {
    access_host(p, kind, site);
  }
}

void* allocate(size_t bytes, const char* name, bool initialised) {
  if (!engine.arena) {
    engine.arena = static_cast<char*>(
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  const size_t room = (bytes + 255) / 256 * 256, pages = (room + kPage - 1) / kPage * kPage;
  // The end of the buffer touches a page that is not mapped: the engine's own mistakes show.
  char* begin = engine.arena + engine.arena_used + kPage + (pages - room);
  engine.arena_used += pages + kPage;
  mprotect(engine.arena + engine.arena_used - pages, pages, PROT_READ | PROT_WRITE);
  std::memset(begin, 0xFF, room);
  Buffer buffer{begin, bytes, name, initialised, {}, {}, {}};
  if (!initialised) buffer.written.resize(bytes);
  engine.buffers.insert_or_assign(begin, std::move(buffer));
  engine.last_buffer = nullptr;
  return begin;
}

void reset() {
  if (engine.arena) munmap(engine.arena, kArenaBytes);
  engine.arena = nullptr;
  engine.arena_used = 0;
  engine.buffers.clear();
  engine.last_buffer = nullptr;
}

void* shared_memory(size_t bytes, size_t alignment, Where where) {
  (void)alignment;  // a page, as the arena starts
  if (bytes > engine.shared.bytes) {
    fail("out of bounds",
         "the kernel wants " + std::to_string(bytes) +
             " bytes of shared memory, the launch gives " + std::to_string(engine.shared.bytes),
         where);
  }
  return engine.shared.begin;
}

void load(const void* p, void* value, size_t bytes, Where where) {
  (void)where;
  access(p, bytes, Kind::read,
         site_of_code(reinterpret_cast<uint64_t>(__builtin_return_address(0))));
  std::memcpy(value, p, bytes);
}

void store(void* p, const void* value, size_t bytes, Where where) {
  (void)where;
  access(p, bytes, Kind::write,
         site_of_code(reinterpret_cast<uint64_t>(__builtin_return_address(0))));
  std::memcpy(p, value, bytes);
}

}  // namespace emulator

// What g++ -fsanitize=thread calls before each access of a kernel: these take libtsan's place.
#define EMULATOR_HOOK(name, bytes, kind)                                                  \
  void name(void* p) {                                                                    \
    if (emulator::engine.muted || !emulator::engine.current) return;                      \
    emulator::access(                                                                     \
        p, bytes, emulator::Kind::kind,                                                   \
        emulator::site_of_code(reinterpret_cast<uint64_t>(__builtin_return_address(0)))); \
  }
#define EMULATOR_HOOKS(bytes)                                \
  EMULATOR_HOOK(__tsan_read##bytes, bytes, read)             \
  EMULATOR_HOOK(__tsan_write##bytes, bytes, write)           \
  EMULATOR_HOOK(__tsan_unaligned_read##bytes, bytes, read)   \
  EMULATOR_HOOK(__tsan_unaligned_write##bytes, bytes, write) \
  EMULATOR_HOOK(__tsan_volatile_read##bytes, bytes, read)    \
  EMULATOR_HOOK(__tsan_volatile_write##bytes, bytes, write)

extern "C" {
EMULATOR_HOOKS(1)
EMULATOR_HOOKS(2)
EMULATOR_HOOKS(4)
EMULATOR_HOOKS(8)
EMULATOR_HOOKS(16)
void __tsan_read_range(void* p, unsigned long bytes) {
  emulator::access_range(p, bytes, emulator::Kind::read,
                         reinterpret_cast<uint64_t>(__builtin_return_address(0)));
}
void __tsan_write_range(void* p, unsigned long bytes) {
  emulator::access_range(p, bytes, emulator::Kind::write,
                         reinterpret_cast<uint64_t>(__builtin_return_address(0)));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}
