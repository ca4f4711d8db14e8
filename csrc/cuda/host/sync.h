// The host half of csrc/cuda/words/sync.cuh.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/host/cuda_atomics.h"
#include "cuda/host/math.h"

namespace suffuse::gpu {

SUFFUSE_DEVICE void named_barrier_sync(int id, int threads, SUFFUSE_WHERE) {
  emulator::barrier_sync(id, threads, {file, line});
}

SUFFUSE_DEVICE void named_barrier_arrive(int id, int threads, SUFFUSE_WHERE) {
  emulator::barrier_arrive(id, threads, {file, line});
}

namespace host {

template <class T>
SUFFUSE_DEVICE void add(T* p, T value, emulator::Where where) {
  read_modify_write(p, where, [=](T old) { return old + value; });
}

template <class Flag>
SUFFUSE_DEVICE Flag acquire(const Flag* p, emulator::Where where) {
  Flag value;
  emulator::load_acquire(p, &value, sizeof value, where);
  return value;
}

}  // namespace host

SUFFUSE_DEVICE void reduce_add(float* p, float value, SUFFUSE_WHERE) {
  host::read_modify_write(p, {file, line}, [=](float old) {
    return host::flush(host::flush(old) + host::flush(value));
  });
}
SUFFUSE_DEVICE void reduce_add(double* p, double value, SUFFUSE_WHERE) {
  host::add(p, value, {file, line});
}
SUFFUSE_DEVICE void reduce_add(int32_t* p, int32_t value, SUFFUSE_WHERE) {
  host::add(p, value, {file, line});
}
SUFFUSE_DEVICE void reduce_add(uint32_t* p, uint32_t value, SUFFUSE_WHERE) {
  host::add(p, value, {file, line});
}
SUFFUSE_DEVICE void reduce_add(uint64_t* p, uint64_t value, SUFFUSE_WHERE) {
  host::add(p, value, {file, line});
}

SUFFUSE_DEVICE uint32_t load_acquire(const uint32_t* p, SUFFUSE_WHERE) {
  return host::acquire(p, {file, line});
}
SUFFUSE_DEVICE uint64_t load_acquire(const uint64_t* p, SUFFUSE_WHERE) {
  return host::acquire(p, {file, line});
}

SUFFUSE_DEVICE void store_release(uint32_t* p, uint32_t value, SUFFUSE_WHERE) {
  emulator::store_release(p, &value, sizeof value, {file, line});
}
SUFFUSE_DEVICE void store_release(uint64_t* p, uint64_t value, SUFFUSE_WHERE) {
  emulator::store_release(p, &value, sizeof value, {file, line});
}

template <class Flag, class Ready>
SUFFUSE_DEVICE Flag spin_until_ready(const Flag* p, Ready ready, SUFFUSE_WHERE) {
  Flag value = load_acquire(p, file, line);
  while (!ready(value)) {
    emulator::spin({file, line});
    value = load_acquire(p, file, line);
  }
  return value;
}

template <class Flag>
SUFFUSE_DEVICE Flag spin_until(const Flag* p, std::common_type_t<Flag> least, SUFFUSE_WHERE) {
  return spin_until_ready(p, [least](Flag value) { return value >= least; }, file, line);
}

}  // namespace suffuse::gpu
