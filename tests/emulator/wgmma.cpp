// Products of a warpgroup: 128 threads hand over their registers, an agent reads shared memory.
#include <algorithm>
#include <array>
#include <cstring>

#include "emulator/hopper.h"

namespace emulator {
namespace {

constexpr int kThreads = 128, kRows = 64, kMostColumns = 256, kMostDepth = 16;

struct Call {
  float* d;
  const uint32_t* a;  // registers, or null
  uint64_t a_descriptor, b_descriptor;
  bool accumulate;
  Where where;
};

struct Warpgroup {
  int agent = -1;
  uint32_t clock = 0;
  int arrived = 0;
  std::array<Call, kThreads> calls;
};

struct Shape {
  int n, depth;
  MmaType type;
  bool a_transposed, b_transposed;
  int element_bytes() const { return type == MmaType::tf32 ? 4 : 2; }
};

// Operands in full precision; b by row of K.
struct Matrices {
  float a[kRows][kMostDepth];
  float b[kMostDepth][kMostColumns];
  float d[kRows][kMostColumns];
};

std::map<int, Warpgroup>& warpgroups() {
  static std::map<int, Warpgroup> all;
  return all;
}

Warpgroup& warpgroup_of(const Fiber& fiber) {
  Warpgroup& group = warpgroups()[fiber.slot / kThreads];
  if (group.agent < 0) group.agent = new_agent();
  return group;
}

std::vector<Fiber*> threads_of(int number) {
  std::vector<Fiber*> fibers;
  for (int i = 0; i < kThreads; i++) {
    fibers.push_back(&engine.fibers[static_cast<size_t>(number * kThreads + i)]);
  }
  return fibers;
}

void check_same(const Call& call, const Call& other) {
  const bool same_place =
      call.where.line == other.where.line && std::strcmp(call.where.file, other.where.file) == 0;
  if (same_place && call.a_descriptor == other.a_descriptor &&
      call.b_descriptor == other.b_descriptor && call.accumulate == other.accumulate) {
    return;
  }
  const uint32_t sites[] = {site_of(call.where), site_of(other.where)};
  complain("warpgroup divergence", uint64_t(sites[0]) << 32 | sites[1],
           "threads of one warpgroup execute the wgmma at " + describe(call.where) +
               (same_place ? " with different operands" : " and at " + describe(other.where)),
           {sites[0], sites[1]});
  end_launch();
}

uint32_t element_of(const char* chunk, int index, int bytes) {
  uint32_t word = 0;
  std::memcpy(&word, chunk + index * bytes, static_cast<size_t>(bytes));
  return word;
}

// Calls put(mn, k, value) for every element of an operand with `extent` rows or columns.
template <class Put>
void read_operand(uint64_t descriptor, bool transposed, int extent, const Shape& shape,
                  const Fiber& starter, const Access& me, Where where, Put put) {
  const Operand operand = decode_operand(descriptor, transposed, where);
  const int bytes = shape.element_bytes(), in_chunk = 16 / bytes;
  const int rows = transposed ? shape.depth : extent;
  const int chunks = (transposed ? extent : shape.depth) / in_chunk;
  for (int row = 0; row < rows; row++) {
    for (int chunk = 0; chunk < chunks; chunk++) {
      const size_t offset = chunk_offset(operand, row, chunk);
      if (offset + 16 > engine.shared.bytes) {
        fail("out of bounds",
             "an operand reaches to offset " + std::to_string(offset + 16) + " of " +
                 std::to_string(engine.shared.bytes) + " of shared memory",
             where);
      }
      access_shared_async(offset, 16, false, starter, me);
      for (int i = 0; i < in_chunk; i++) {
        const uint32_t bits = element_of(engine.shared.begin + offset, i, bytes);
        const int along = chunk * in_chunk + i;
        put(transposed ? along : row, transposed ? row : along, widen_operand(bits, shape.type));
      }
    }
  }
}

// The fragments of mma_m16n8k16 or mma_m16n8k8_tf32, 16 rows for each warp.
void read_a_registers(const Warpgroup& group, const Shape& shape, Matrices& m) {
  for (int thread = 0; thread < kThreads; thread++) {
    const uint32_t* a = group.calls[static_cast<size_t>(thread)].a;
    const int g = thread % 32 / 4, t = thread % 4;
    for (int r = 0; r < 4; r++) {
      float* row = m.a[thread / 32 * 16 + g + r % 2 * 8];
      if (shape.type == MmaType::tf32) {
        row[t + r / 2 * 4] = widen_operand(a[r], shape.type);
        continue;
      }
      row[2 * t + r / 2 * 8] = widen_operand(a[r] & 0xffff, shape.type);
      row[2 * t + r / 2 * 8 + 1] = widen_operand(a[r] >> 16, shape.type);
    }
  }
}

// Register i of a thread's accumulator.
float& accumulator(Matrices& m, int thread, int i) {
  const int row = thread / 32 * 16 + i / 2 % 2 * 8 + thread % 32 / 4;
  return m.d[row][i / 4 * 8 + thread % 4 * 2 + i % 2];
}

void multiply_exactly(Matrices& m, const Shape& shape) {
  double sum[kMostColumns];
  for (int row = 0; row < kRows; row++) {
    std::copy(m.d[row], m.d[row] + shape.n, sum);
    for (int k = 0; k < shape.depth; k++) {
      const double a = m.a[row][k];
      for (int column = 0; column < shape.n; column++) sum[column] += a * m.b[k][column];
    }
    for (int column = 0; column < shape.n; column++) {
      m.d[row][column] = static_cast<float>(sum[column]);
    }
  }
}

void multiply(Matrices& m, const Shape& shape) {
  if (engine.options.mma == MmaRounding::ideal) return multiply_exactly(m, shape);
  for (int row = 0; row < kRows; row++) {
    for (int column = 0; column < shape.n; column++) {
      float& d = m.d[row][column];
      d = dot_product(m.a[row], 1, &m.b[0][column], kMostColumns, shape.depth, d);
    }
  }
}

void execute(Warpgroup& group, int number, const Shape& shape) {
  static Matrices m;
  const Call& call = group.calls[0];
  const std::vector<Fiber*> threads = threads_of(number);
  const Fiber starter = witness(threads);
  const Moment moment = agent_moment(group.agent, nullptr);
  group.clock = moment.clock;
  const Access me{moment.clock, static_cast<uint16_t>(group.agent), false, true,
                  site_of(call.where)};
  if (call.a) {
    read_a_registers(group, shape, m);
  } else {
    read_operand(call.a_descriptor, shape.a_transposed, kRows, shape, starter, me, call.where,
                 [&](int row, int k, float value) { m.a[row][k] = value; });
  }
  read_operand(call.b_descriptor, shape.b_transposed, shape.n, shape, starter, me, call.where,
               [&](int column, int k, float value) { m.b[k][column] = value; });
  float registers[kMostColumns / 2];
  const int count = shape.n / 2;
  for (int t = 0; t < kThreads; t++) {
    const Call& mine = group.calls[static_cast<size_t>(t)];
    read_accumulator(*threads[static_cast<size_t>(t)], mine.d, count, registers, mine.where);
    for (int i = 0; i < count; i++) accumulator(m, t, i) = mine.accumulate ? registers[i] : 0.f;
  }
  multiply(m, shape);
  for (int t = 0; t < kThreads; t++) {
    const Call& mine = group.calls[static_cast<size_t>(t)];
    Fiber& fiber = *threads[static_cast<size_t>(t)];
    for (int i = 0; i < count; i++) registers[i] = accumulator(m, t, i);
    hold_accumulator(fiber, mine.d, count, registers, mine.where);
    if (mine.a) hold_operand(fiber, mine.a);
  }
  ++engine.report.counters.wgmma;
}

}  // namespace

void reset_warpgroups() { warpgroups().clear(); }

Moment last_product(const Fiber& fiber) {
  const Warpgroup& group = warpgroup_of(fiber);
  return {nullptr, group.agent, group.clock};
}

void wgmma(float* d, int n, MmaType type, const uint32_t* a_registers, uint64_t a_descriptor,
           uint64_t b_descriptor, bool a_transposed, bool b_transposed, bool accumulate,
           Where where) {
  Fiber& fiber = *engine.current;
  const int number = fiber.slot / kThreads;
  if ((number + 1) * kThreads > engine.threads) {
    fail("warpgroup", "the block has no 128 threads for this warpgroup", where);
  }
  check_fenced(fiber, d, static_cast<size_t>(n) / 2 * sizeof(float), where);
  if (a_registers) check_fenced(fiber, a_registers, 16, where);
  Warpgroup& group = warpgroup_of(fiber);
  const Call call{d, a_registers, a_descriptor, b_descriptor, accumulate, where};
  if (group.arrived) {
    const auto first = std::find_if(group.calls.begin(), group.calls.end(),
                                    [](const Call& other) { return other.d != nullptr; });
    check_same(call, *first);
  } else {
    group.calls = {};
  }
  group.calls[static_cast<size_t>(fiber.slot % kThreads)] = call;
  if (++group.arrived < kThreads) return block_on("wgmma", where);
  group.arrived = 0;
  execute(group, number, {n, type == MmaType::tf32 ? 8 : 16, type, a_transposed, b_transposed});
  for (Fiber* other : threads_of(number)) {
    if (other != &fiber) wake(*other);
  }
}

}  // namespace emulator
