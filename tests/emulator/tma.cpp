// The tensor memory accelerator: boxes of a tensor between global and shared memory.
#include <algorithm>
#include <cstring>

#include "emulator/hopper.h"

namespace emulator {
namespace {

// The part of one row of a box that lies within the tensor.
struct Row {
  char* global;       // of byte `begin`
  size_t begin, end;  // within the row, in bytes; equal where all of it is outside
  size_t shared;      // offset of byte 0 in the box as it would be without swizzle
};

struct Box {
  TensorMap map;
  size_t shared;  // offset of the box in shared memory
  size_t row_bytes, bytes;
  std::vector<Row> rows;
};

void check_map(const TensorMap& map, int rank, Where where) {
  if (map.rank != rank) {
    fail("tensor map",
         std::to_string(rank) + " coordinates for a map of " + std::to_string(map.rank) +
             " dimensions",
         where);
  }
}

size_t checked_box(const TensorMap& map, const void* shared, size_t bytes, Where where) {
  const size_t offset = shared_address(shared, where);
  const size_t alignment = std::max(size_t(128), period_of(map.swizzle));
  if (offset % alignment) {
    fail("misaligned",
         "a box at offset " + std::to_string(offset) +
             " of shared memory: expected a multiple of " + std::to_string(alignment),
         where);
  }
  if (offset + bytes > engine.shared.bytes) {
    fail("out of bounds",
         "a box of " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) +
             " of " + std::to_string(engine.shared.bytes) + " of shared memory",
         where);
  }
  return offset;
}

// Row `index` of the box: dimensions 1 and up, the lower ones faster.
Row row_of(const Box& box, const int32_t* coordinates, size_t index) {
  const TensorMap& map = box.map;
  const auto element = static_cast<int64_t>(map.element_bytes);
  Row row{static_cast<char*>(map.address), 0, 0, index * box.row_bytes};
  bool inside = true;
  for (int i = 1; i < map.rank; i++) {
    const int64_t at = coordinates[i] + static_cast<int64_t>(index % map.box[i]);
    index /= map.box[i];
    inside &= at >= 0 && static_cast<uint64_t>(at) < map.size[i];
    row.global += at * static_cast<int64_t>(map.stride[i - 1]);
  }
  const int64_t first = coordinates[0], last = first + map.box[0];
  const int64_t from = std::max<int64_t>(first, 0);
  const int64_t to = std::min(last, static_cast<int64_t>(map.size[0]));
  if (!inside || from >= to) return row;
  row.begin = static_cast<size_t>((from - first) * element);
  row.end = static_cast<size_t>((to - first) * element);
  row.global += from * element;
  return row;
}

Box box_of(const TensorMap& map, const int32_t* coordinates, int rank, const void* shared,
           Where where) {
  check_map(map, rank, where);
  Box box{map, 0, size_t(map.box[0]) * static_cast<size_t>(map.element_bytes), 0, {}};
  size_t rows = 1;
  for (int i = 1; i < rank; i++) rows *= map.box[i];
  box.bytes = rows * box.row_bytes;
  box.shared = checked_box(map, shared, box.bytes, where);
  for (size_t i = 0; i < rows; i++) box.rows.push_back(row_of(box, coordinates, i));
  return box;
}

// Calls part(shared, global, bytes) for every piece of a row that is contiguous in both memories.
template <class Part>
void for_each_part(const Box& box, const Row& row, Part part) {
  for (size_t at = row.begin; at < row.end;) {
    const size_t next = std::min(row.end, at / 16 * 16 + 16);
    part(swizzled(box.shared + row.shared + at, box.map.swizzle), row.global + (at - row.begin),
         next - at);
    at = next;
  }
}

void count_traffic(const Box& box, Traffic& traffic, bool write) {
  const uint8_t bit = write ? 2 : 1;
  ++traffic.requests;
  uint64_t bytes = 0;
  for (const Row& row : box.rows) {
    if (row.begin == row.end) continue;
    Buffer& buffer = *find_buffer(row.global);
    const auto offset = static_cast<size_t>(row.global - buffer.begin);
    const size_t first = offset / 32, last = (offset + row.end - row.begin - 1) / 32;
    traffic.sectors += last - first + 1;
    bytes += row.end - row.begin;
    for (size_t sector = first; sector <= last; sector++) {
      if (!(buffer.touched[sector] & bit)) ++traffic.distinct;
      buffer.touched[sector] |= bit;
    }
  }
  traffic.ideal += (bytes + 31) / 32;
  traffic.bytes += bytes;
}

void check_rows(const Box& box, bool write, const Fiber& starter, const Access& me) {
  for (const Row& row : box.rows) {
    if (row.begin == row.end) continue;
    access_global_async(row.global, row.end - row.begin, write, starter, me);
  }
}

Access access_of(const Moment& agent, uint32_t site) {
  return {agent.clock, static_cast<uint16_t>(agent.slot), false, true, site};
}

// Round to nearest or cut off: what the hardware does is not documented.
void round_to_tf32(char* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 4) {
    uint32_t word;
    std::memcpy(&word, p + i, 4);
    const bool finite = (word & 0x7f800000u) != 0x7f800000u;
    if (finite && engine.options.mma == MmaRounding::ideal) word += 0x1000u;
    if (finite) word &= 0xffffe000u;
    std::memcpy(p + i, &word, 4);
  }
}

void land(const Box& box, uint64_t* barrier, int agent, uint32_t site) {
  Shared& shared = engine.shared;
  const Moment moment = agent_moment(agent, nullptr);
  std::memset(shared.begin + box.shared, 0, box.bytes);
  for (const Row& row : box.rows) {
    for_each_part(box, row, [&](size_t to, const char* from, size_t bytes) {
      std::memcpy(shared.begin + to, from, bytes);
    });
  }
  if (box.map.rounds_to_tf32) round_to_tf32(shared.begin + box.shared, box.bytes);
  std::memset(&shared.in_flight[box.shared], 0, box.bytes);
  std::memset(&shared.written[box.shared], 1, box.bytes);
  const size_t first = box.shared / kCellBytes, cells = box.bytes / kCellBytes;
  for (size_t i = first; engine.options.races && i < first + cells; i++) {
    shared.cells[i].write = access_of(moment, site);
  }
  complete_bytes(barrier, static_cast<int64_t>(box.bytes), moment, site);
}

// ---- stores ----------------------------------------------------------------------------------

struct Store {
  bool landed = false;
  Fiber* waiting = nullptr;
};
struct Group {
  std::vector<std::shared_ptr<Store>> stores;
  uint32_t clock = 0, site = 0;
  bool read_waited = false;
};
// A thread's stores: the unit's reads and writes are told apart, as a thread may wait for either.
struct Stores {
  int reader = -1, writer = -1;
  Group open;
  std::deque<Group> groups;
};

std::map<int, Stores>& all_stores() {
  static std::map<int, Stores> stores;
  return stores;
}

Stores& stores_of(const Fiber& fiber) {
  Stores& stores = all_stores()[fiber.slot];
  if (stores.reader < 0) {
    stores.reader = new_agent();
    stores.writer = new_agent();
  }
  return stores;
}

void land_store(const Box& box, Store& store) {
  Shared& shared = engine.shared;
  for (const Row& row : box.rows) {
    for_each_part(box, row, [&](size_t from, char* to, size_t bytes) {
      std::memcpy(to, shared.begin + from, bytes);
    });
    if (row.begin == row.end) continue;
    Buffer& buffer = *find_buffer(row.global);
    if (buffer.initialised) continue;
    std::memset(&buffer.written[static_cast<size_t>(row.global - buffer.begin)], 1,
                row.end - row.begin);
  }
  for (size_t i = box.shared; i < box.shared + box.bytes; i++) --shared.busy[i];
  store.landed = true;
  if (store.waiting) wake(*store.waiting);
}

void wait_landed(Group& group, Where where) {
  for (const auto& store : group.stores) {
    if (store->landed) continue;
    store->waiting = engine.current;
    block_on("bulk_wait", where);
  }
  group.read_waited = true;
}

}  // namespace

void reset_stores() { all_stores().clear(); }

void check_stores_waited(Fiber& fiber) {
  const auto it = all_stores().find(fiber.slot);
  if (it == all_stores().end()) return;
  std::vector<Group> groups(it->second.groups.begin(), it->second.groups.end());
  groups.push_back(it->second.open);
  for (const Group& group : groups) {
    if (group.read_waited || group.stores.empty()) continue;
    complain("bulk copy", group.site,
             "a thread ends without bulk_commit and bulk_wait_read for the store at " +
                 describe(group.site) + ": its shared memory may be gone before it is read",
             {group.site});
  }
}

void tensor_load(void* shared, const TensorMap& map, const int32_t* coordinates, int rank,
                 uint64_t* barrier, Where where) {
  const uint32_t site = site_of(where);
  const Box box = box_of(map, coordinates, rank, shared, where);
  const Fiber starter = witness(*engine.current);
  const int agent = agent_of_mbarrier(barrier, starter, where);
  const Access me = access_of(agent_moment(agent, nullptr), site);
  check_rows(box, false, starter, me);
  for (const Row& row : box.rows) {
    access_shared_async(box.shared + row.shared, box.row_bytes, true, starter, me);
  }
  if (engine.options.counters) count_traffic(box, engine.report.counters.tensor_load, false);
  std::memset(engine.shared.begin + box.shared, 0xFF, box.bytes);
  std::memset(&engine.shared.in_flight[box.shared], 1, box.bytes);
  land_later([=] { land(box, barrier, agent, site); }, site);
}

void tensor_store(const TensorMap& map, const int32_t* coordinates, int rank, const void* shared,
                  Where where) {
  const uint32_t site = site_of(where);
  const Box box = box_of(map, coordinates, rank, shared, where);
  Stores& stores = stores_of(*engine.current);
  const Fiber starter = witness(*engine.current);
  const Access read = access_of(agent_moment(stores.reader, nullptr), site);
  const Access write = access_of(agent_moment(stores.writer, nullptr), site);
  for (const Row& row : box.rows) {
    for_each_part(box, row, [&](size_t from, char*, size_t bytes) {
      access_shared_async(from, bytes, false, starter, read);
    });
  }
  check_rows(box, true, starter, write);
  if (engine.options.counters) count_traffic(box, engine.report.counters.tensor_store, true);
  for (size_t i = box.shared; i < box.shared + box.bytes; i++) ++engine.shared.busy[i];
  auto store = std::make_shared<Store>();
  stores.open.stores.push_back(store);
  stores.open.clock = read.clock;  // the writer's is the same
  stores.open.site = site;
  land_later([=] { land_store(box, *store); }, site);
}

void bulk_commit() {
  Stores& stores = stores_of(*engine.current);
  stores.groups.push_back(std::move(stores.open));
  stores.open = {};
}

void bulk_wait(int pending, bool read_only, Where where) {
  Fiber& fiber = *engine.current;
  Stores& stores = stores_of(fiber);
  const size_t count = stores.groups.size();
  for (size_t i = 0; i + static_cast<size_t>(pending) < count; i++) {
    Group& group = stores.groups[i];
    wait_landed(group, where);
    acquire_agent(fiber, stores.reader, group.clock);
    if (!read_only) acquire_agent(fiber, stores.writer, group.clock);
  }
  if (read_only) return;
  for (size_t i = 0; i + static_cast<size_t>(pending) < count; i++) stores.groups.pop_front();
}

}  // namespace emulator
