// Matrix descriptors of wgmma: where the chunks of an operand lie in shared memory.
#include "emulator/hopper.h"

namespace emulator {
namespace {

size_t field(uint64_t descriptor, int bit) { return (descriptor >> bit & 0x3fff) << 4; }

void check_start(const Operand& operand, uint64_t descriptor, Where where) {
  const uint64_t unused = 0x3fffc000c000c000u;
  if (descriptor & unused) {
    fail("matrix descriptor", "a base offset or a bit that has no meaning is set", where);
  }
  if (operand.swizzle == Swizzle::none) return;
  const size_t span = span_of(operand.swizzle), period = period_of(operand.swizzle);
  // Along K an operand may start within the first row of a pattern, and end in it.
  const size_t into = operand.start % period;
  if (operand.transposed ? into != 0 : into + 32 > span) {
    fail("matrix descriptor",
         "the operand starts " + std::to_string(into) + " bytes into the swizzle pattern of " +
             std::to_string(period) + " bytes: expected " +
             (operand.transposed ? "0" : "at most " + std::to_string(span - 32)),
         where);
  }
}

}  // namespace

Operand decode_operand(uint64_t descriptor, bool transposed, Where where) {
  constexpr Swizzle kModes[] = {Swizzle::none, Swizzle::b128, Swizzle::b64, Swizzle::b32};
  const Operand operand{field(descriptor, 0), field(descriptor, 16), field(descriptor, 32),
                        kModes[descriptor >> 62], transposed};
  check_start(operand, descriptor, where);
  return operand;
}

// The canonical layouts, in chunks of 16 bytes.
size_t chunk_offset(const Operand& operand, int row, int chunk) {
  const auto r = static_cast<size_t>(row), c = static_cast<size_t>(chunk);
  const size_t span = span_of(operand.swizzle), chunks = span / 16;
  size_t offset = operand.start + r % 8 * span;
  if (operand.swizzle == Swizzle::none) {
    offset += operand.transposed ? r / 8 * operand.leading + c * operand.stride
                                 : r / 8 * operand.stride + c * operand.leading;
  } else if (operand.transposed) {
    offset += r / 8 * operand.stride + c / chunks * operand.leading + c % chunks * 16;
  } else {
    offset += r / 8 * operand.stride + c * 16;
  }
  return swizzled(offset, operand.swizzle);
}

}  // namespace emulator
