// The host half of csrc/cuda/words/mbarrier.cuh, tma.cuh and wgmma.cuh.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "common/dtype.h"
#include "cuda/host/cuda_language.h"
#include "cuda/host/tensor_map.h"
#include "cuda/swizzle.h"

namespace suffuse::gpu {

SUFFUSE_DEVICE void mbarrier_init(uint64_t* barrier, int count, SUFFUSE_WHERE) {
  emulator::mbarrier_init(barrier, count, {file, line});
}
SUFFUSE_DEVICE void mbarrier_invalidate(uint64_t* barrier, SUFFUSE_WHERE) {
  emulator::mbarrier_invalidate(barrier, {file, line});
}
SUFFUSE_DEVICE void fence_mbarrier_init() { emulator::fence_mbarrier_init(); }
SUFFUSE_DEVICE void mbarrier_arrive(uint64_t* barrier, SUFFUSE_WHERE) {
  emulator::mbarrier_arrive(barrier, 0, {file, line});
}
SUFFUSE_DEVICE void mbarrier_arrive_expect(uint64_t* barrier, int bytes, SUFFUSE_WHERE) {
  emulator::mbarrier_arrive(barrier, bytes, {file, line});
}
SUFFUSE_DEVICE bool mbarrier_test(uint64_t* barrier, uint32_t parity, SUFFUSE_WHERE) {
  return emulator::mbarrier_test(barrier, parity, {file, line});
}
SUFFUSE_DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity, SUFFUSE_WHERE) {
  emulator::mbarrier_wait(barrier, parity, {file, line});
}
SUFFUSE_DEVICE void fence_async() { emulator::fence_async(); }

namespace host {

SUFFUSE_DEVICE void load(void* shared, const TensorMap& map, std::initializer_list<int32_t> at,
                         uint64_t* barrier, emulator::Where where) {
  emulator::tensor_load(shared, map.map, at.begin(), static_cast<int>(at.size()), barrier, where);
}
SUFFUSE_DEVICE void store(const TensorMap& map, std::initializer_list<int32_t> at,
                          const void* shared, emulator::Where where) {
  emulator::tensor_store(map.map, at.begin(), static_cast<int>(at.size()), shared, where);
}

}  // namespace host

SUFFUSE_DEVICE void prefetch_tensor_map(const TensorMap& map) { static_cast<void>(map); }

SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1,
                                uint64_t* barrier, SUFFUSE_WHERE) {
  host::load(shared, map, {c0, c1}, barrier, {file, line});
}
SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1, int c2,
                                uint64_t* barrier, SUFFUSE_WHERE) {
  host::load(shared, map, {c0, c1, c2}, barrier, {file, line});
}
SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1, int c2, int c3,
                                uint64_t* barrier, SUFFUSE_WHERE) {
  host::load(shared, map, {c0, c1, c2, c3}, barrier, {file, line});
}

SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, const void* shared,
                                 SUFFUSE_WHERE) {
  host::store(map, {c0, c1}, shared, {file, line});
}
SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, int c2, const void* shared,
                                 SUFFUSE_WHERE) {
  host::store(map, {c0, c1, c2}, shared, {file, line});
}
SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, int c2, int c3,
                                 const void* shared, SUFFUSE_WHERE) {
  host::store(map, {c0, c1, c2, c3}, shared, {file, line});
}

SUFFUSE_DEVICE void bulk_commit() { emulator::bulk_commit(); }
template <int kPending>
SUFFUSE_DEVICE void bulk_wait(SUFFUSE_WHERE) {
  emulator::bulk_wait(kPending, false, {file, line});
}
template <int kPending>
SUFFUSE_DEVICE void bulk_wait_read(SUFFUSE_WHERE) {
  emulator::bulk_wait(kPending, true, {file, line});
}

SUFFUSE_DEVICE uint64_t wgmma_descriptor(const void* start, Swizzle swizzle, int leading_bytes,
                                         int stride_bytes, SUFFUSE_WHERE) {
  return encode_matrix_descriptor(emulator::shared_address(start, {file, line}), swizzle,
                                  leading_bytes, stride_bytes);
}

namespace host {

// Stands for registers that are not listed.
struct Nothing {};
inline Nothing nothing;

inline emulator::Registers registers_of(const Nothing&) { return {nullptr, 0}; }
template <class T, int N>
emulator::Registers registers_of(const T (&registers)[N]) {
  static_assert(sizeof(std::remove_all_extents_t<T>) == 4);
  return {registers, sizeof registers};
}

template <class S>
constexpr emulator::MmaType mma_type() {
  static_assert(std::is_same_v<S, bfloat16> || std::is_same_v<S, float16> ||
                std::is_same_v<S, float>);
  return std::is_same_v<S, bfloat16>  ? emulator::MmaType::bf16
         : std::is_same_v<S, float16> ? emulator::MmaType::f16
                                      : emulator::MmaType::tf32;
}

}  // namespace host

// Four arrays at most: behind a parameter pack there could be no position.
template <class A = host::Nothing, class B = host::Nothing, class C = host::Nothing,
          class D = host::Nothing>
SUFFUSE_DEVICE void wgmma_fence(A& a = host::nothing, B& b = host::nothing, C& c = host::nothing,
                                D& d = host::nothing, SUFFUSE_WHERE) {
  const emulator::Registers listed[] = {host::registers_of(a), host::registers_of(b),
                                        host::registers_of(c), host::registers_of(d)};
  emulator::wgmma_fence(listed, 4, {file, line});
}

SUFFUSE_DEVICE void wgmma_commit(SUFFUSE_WHERE) { emulator::wgmma_commit({file, line}); }

template <int kPending, class A = host::Nothing, class B = host::Nothing, class C = host::Nothing,
          class D = host::Nothing>
SUFFUSE_DEVICE void wgmma_wait(A& a = host::nothing, B& b = host::nothing, C& c = host::nothing,
                               D& d = host::nothing, SUFFUSE_WHERE) {
  const emulator::Registers listed[] = {host::registers_of(a), host::registers_of(b),
                                        host::registers_of(c), host::registers_of(d)};
  emulator::wgmma_wait(kPending, listed, 4, {file, line});
}

template <int kRegisters>
SUFFUSE_DEVICE void set_max_registers_up(SUFFUSE_WHERE) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  emulator::set_max_registers(kRegisters, true, {file, line});
}
template <int kRegisters>
SUFFUSE_DEVICE void set_max_registers_down(SUFFUSE_WHERE) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  emulator::set_max_registers(kRegisters, false, {file, line});
}

template <int N, class S, Major kA = Major::k, Major kB = Major::k>
SUFFUSE_DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate,
                          SUFFUSE_WHERE) {
  static_assert(sizeof(S) == 2 || (kA == Major::k && kB == Major::k), "tf32 is K-major only");
  emulator::wgmma(d, N, host::mma_type<S>(), nullptr, a, b, kA == Major::mn, kB == Major::mn,
                  accumulate, {file, line});
}

template <int N, class S, Major kB = Major::k>
SUFFUSE_DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate,
                          SUFFUSE_WHERE) {
  static_assert(sizeof(S) == 2 || kB == Major::k, "tf32 is K-major only");
  emulator::wgmma(d, N, host::mma_type<S>(), a, 0, b, false, kB == Major::mn, accumulate,
                  {file, line});
}

}  // namespace suffuse::gpu
