// How tiles lie in shared memory for TMA and wgmma: a tile is made of rows as wide as the swizzle
// span, and within 8 rows the 16-byte chunks of a row change places, so that a column of chunks
// touches all banks.
#pragma once

#include <cstdint>

#include "common/macros.h"

namespace suffuse::gpu {

// Which index of an operand of wgmma is contiguous in memory: K, or M (of A) or N (of B).
enum class Major : int32_t { k, mn };

enum class Swizzle : int32_t { none, bytes32, bytes64, bytes128 };

// Bytes of a row; for `none` a chunk.
SUFFUSE_HD constexpr int swizzle_span(Swizzle swizzle) {
  return swizzle == Swizzle::none ? 16 : 16 << static_cast<int>(swizzle);
}
// Bytes after which the pattern repeats; a tile starts at a multiple of it.
SUFFUSE_HD constexpr int swizzle_period(Swizzle swizzle) { return 8 * swizzle_span(swizzle); }

SUFFUSE_HD constexpr Swizzle swizzle_of_span(int bytes) {
  return bytes == 128  ? Swizzle::bytes128
         : bytes == 64 ? Swizzle::bytes64
         : bytes == 32 ? Swizzle::bytes32
                       : Swizzle::none;
}

// Where the byte lies that would be at `offset` of a tile without swizzle: the index of the chunk
// (bits 4 to 6) is changed by the bits from 7 on, as many as the span has.
SUFFUSE_HD constexpr uint32_t swizzle_offset(uint32_t offset, Swizzle swizzle) {
  const uint32_t chunks = static_cast<uint32_t>(swizzle_span(swizzle) / 16 - 1);
  return offset ^ (offset >> 7 & chunks) << 4;
}

// The matrix descriptor of wgmma (PTX ISA: "matrix-descriptor"): bits 0-13 the address, 16-29 the
// leading and 32-45 the stride byte offset, each in units of 16 bytes; 62-63 the swizzle. The base
// offset (49-51) is 0: tiles start at a multiple of swizzle_period.
SUFFUSE_HD constexpr uint64_t encode_matrix_descriptor(uint32_t shared_address, Swizzle swizzle,
                                                       int leading_bytes, int stride_bytes) {
  const uint64_t mode = swizzle == Swizzle::none ? 0 : 4 - static_cast<uint64_t>(swizzle);
  return static_cast<uint64_t>(shared_address >> 4 & 0x3fff) |
         static_cast<uint64_t>(leading_bytes >> 4 & 0x3fff) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4 & 0x3fff) << 32 | mode << 62;
}

}  // namespace suffuse::gpu
