// CUDA's atomic functions: the emulator sees one atomic access, and nothing comes between the read
// and the write, for a thread gives way in calls of the emulator only.
#pragma once

#include <type_traits>

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu::host {

// Not instrumented, so that the emulator does not see them as accesses of their own; noipa keeps
// the access from moving into the caller.
template <class T>
__attribute__((noipa, no_sanitize("thread"))) T peek(const T* p) {
  return *p;
}
template <class T>
__attribute__((noipa, no_sanitize("thread"))) void poke(T* p, T value) {
  *p = value;
}

template <class T, class F>
SUFFUSE_DEVICE T read_modify_write(T* p, emulator::Where where, F next) {
  emulator::atomic(p, sizeof(T), where);
  const T old = peek(p);
  poke(p, static_cast<T>(next(old)));
  return old;
}

template <class T, class... Types>
constexpr bool is_one_of = (std::is_same_v<T, Types> || ...);

// The type of an argument that does not take part in deduction, so that atomicAdd(&count, 1) does.
template <class T>
using Same = std::common_type_t<T>;

using ulonglong = unsigned long long;

}  // namespace suffuse::gpu::host

template <class T>
SUFFUSE_DEVICE T atomicAdd(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, ulonglong, float, double>);
  return read_modify_write(p, {file, line}, [=](T old) { return old + value; });
}
template <class T>
SUFFUSE_DEVICE T atomicMin(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, long long, ulonglong>);
  return read_modify_write(p, {file, line}, [=](T old) { return value < old ? value : old; });
}
template <class T>
SUFFUSE_DEVICE T atomicMax(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, long long, ulonglong>);
  return read_modify_write(p, {file, line}, [=](T old) { return old < value ? value : old; });
}
template <class T>
SUFFUSE_DEVICE T atomicAnd(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, ulonglong>);
  return read_modify_write(p, {file, line}, [=](T old) { return old & value; });
}
template <class T>
SUFFUSE_DEVICE T atomicOr(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, ulonglong>);
  return read_modify_write(p, {file, line}, [=](T old) { return old | value; });
}
template <class T>
SUFFUSE_DEVICE T atomicExch(T* p, suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, ulonglong, float>);
  return read_modify_write(p, {file, line}, [=](T) { return value; });
}
template <class T>
SUFFUSE_DEVICE T atomicCAS(T* p, suffuse::gpu::host::Same<T> expected,
                           suffuse::gpu::host::Same<T> value, SUFFUSE_WHERE) {
  using namespace suffuse::gpu::host;
  static_assert(is_one_of<T, int, unsigned, ulonglong>);
  return read_modify_write(p, {file, line}, [=](T old) { return old == expected ? value : old; });
}
