// What mbarrier.cpp, tma.cpp and wgmma.cpp share: asynchronous units that read and write memory on
// behalf of threads.
#pragma once

#include "emulator/state.h"

namespace emulator {

// ---- hopper.cpp ------------------------------------------------------------------------------

// What one thread, or all of a warpgroup together, knows; stands for them when a unit that they
// start is checked.
Fiber witness(const std::vector<Fiber*>& fibers);
// The same at one moment of one thread, which starts its next clock.
Fiber witness(Fiber& fiber);
void acquire_agent(Fiber& fiber, int slot, uint32_t clock);

// The 16-byte chunks of a row change places; `offset` is from the start of shared memory.
size_t swizzled(size_t offset, Swizzle swizzle);
constexpr size_t span_of(Swizzle swizzle) { return size_t(16) << static_cast<int>(swizzle); }
constexpr size_t period_of(Swizzle swizzle) {
  return swizzle == Swizzle::none ? 128 : 8 * span_of(swizzle);
}

// One access of an asynchronous unit to bytes of shared memory, that `starter` has brought about.
void access_shared_async(size_t offset, size_t bytes, bool write, const Fiber& starter,
                         const Access& me);
void access_global_async(const char* p, size_t bytes, bool write, const Fiber& starter,
                         const Access& me);

// ---- mbarrier.cpp ----------------------------------------------------------------------------

void reset_mbarriers();
// The agent of a barrier that bytes are to arrive at.
int agent_of_mbarrier(uint64_t* barrier, const Fiber& starter, Where where);
// From a landing.
void complete_bytes(uint64_t* barrier, int64_t bytes, const Moment& moment, uint32_t site);

// ---- tma.cpp ---------------------------------------------------------------------------------

void reset_stores();
void check_stores_waited(Fiber& fiber);

// ---- wgmma_registers.cpp ---------------------------------------------------------------------

void reset_registers();
// Ends with a finding where the thread has touched the registers since its last fence of them.
void check_fenced(const Fiber& fiber, const void* begin, size_t bytes, Where where);
// What a product in flight holds, or else the memory that stands for the registers.
void read_accumulator(const Fiber& fiber, const float* d, int count, float* values, Where where);
// From here on the registers belong to the open group.
void hold_accumulator(Fiber& fiber, float* d, int count, const float* values, Where where);
void hold_operand(Fiber& fiber, const uint32_t* a);
void check_products_waited(Fiber& fiber);

// ---- wgmma_operand.cpp -----------------------------------------------------------------------

struct Operand {
  size_t start, leading, stride;
  Swizzle swizzle;
  bool transposed;  // MN-major
};
Operand decode_operand(uint64_t descriptor, bool transposed, Where where);
// Offset in shared memory of a 16-byte chunk. K-major: rows of M or N, chunks along K. MN-major:
// rows of K, chunks along M or N.
size_t chunk_offset(const Operand& operand, int row, int chunk);

// ---- wgmma.cpp -------------------------------------------------------------------------------

void reset_warpgroups();
// The clock of the warpgroup's last product, and the slot it is in.
Moment last_product(const Fiber& fiber);

// ---- max_registers.cpp -----------------------------------------------------------------------

void reset_register_pool();
void check_settings_complete(const Fiber& fiber);

}  // namespace emulator
