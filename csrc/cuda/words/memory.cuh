// Memory: the block's shared memory, and vectors of 4, 8 or 16 bytes, one instruction each.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace suffuse::gpu {

// The dynamic shared memory of the block as one T, at a multiple of 1024 bytes; the launch gives
// sizeof(T). A kernel has one T: all of its shared memory. Nothing is constructed.
template <class T>
SUFFUSE_DEVICE T& shared() {
  static_assert(std::is_trivially_default_constructible_v<T>);
  extern __shared__ __align__(1024) unsigned char suffuse_shared_memory[];
  return *reinterpret_cast<T*>(suffuse_shared_memory);
}

// The address within shared memory that PTX takes for a pointer to it.
SUFFUSE_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// A V of 4, 8 or 16 bytes (uint32_t, float, float2, uint2, float4, uint4), from global or shared
// memory; p is a multiple of its size. PTX: ld.v{2,4}.
template <class V>
SUFFUSE_DEVICE V load_vector(const void* p) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
  return *static_cast<const V*>(p);
}

// The integer that store_vector writes: nvcc takes a float4 apart, and does not always put the
// stores together again.
template <size_t kBytes>
struct VectorWord;
template <>
struct VectorWord<4> {
  using type = uint32_t;
};
template <>
struct VectorWord<8> {
  using type = uint64_t;
};
template <>
struct VectorWord<16> {
  using type = unsigned __int128;
};

// The same to global or shared memory. PTX: st, of 16 bytes st.v2.u64.
template <class V>
SUFFUSE_DEVICE void store_vector(void* p, V value) {
  using Word = typename VectorWord<sizeof(V)>::type;
  Word word;
  memcpy(&word, &value, sizeof value);
  *static_cast<Word*>(p) = word;
}

// load_vector of global memory that no other access of the launch needs again and none writes: past
// the L1 cache. PTX: ld.global.nc.L1::no_allocate.
template <class V>
SUFFUSE_DEVICE V load_vector_once(const void* p) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
  uint32_t word[sizeof(V) / 4];
  if constexpr (sizeof(V) == 4) {
    asm volatile("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(word[0]) : "l"(p));
  } else if constexpr (sizeof(V) == 8) {
    asm volatile("ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];"
                 : "=r"(word[0]), "=r"(word[1])
                 : "l"(p));
  } else {
    asm volatile("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "l"(p));
  }
  V value;
  memcpy(&value, word, sizeof value);
  return value;
}

// store_vector to global memory that is not needed again soon: the first to leave the caches. PTX:
// st.global.cs.
template <class V>
SUFFUSE_DEVICE void store_vector_once(void* p, V value) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
  uint32_t word[sizeof(V) / 4];
  memcpy(word, &value, sizeof value);
  if constexpr (sizeof(V) == 4) {
    asm volatile("st.global.cs.b32 [%0], %1;" ::"l"(p), "r"(word[0]) : "memory");
  } else if constexpr (sizeof(V) == 8) {
    asm volatile("st.global.cs.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(word[0]), "r"(word[1])
                 : "memory");
  } else {
    asm volatile("st.global.cs.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(word[0]), "r"(word[1]),
                 "r"(word[2]), "r"(word[3])
                 : "memory");
  }
}

}  // namespace suffuse::gpu
