// Copies of boxes of a tensor between global and shared memory by the tensor memory accelerator
// (sm_90). One thread issues a copy; c0 is the coordinate in the innermost dimension. Boxes may
// reach beyond the tensor on any side: a load gives zeros there, a store leaves it out. Shared
// addresses are multiples of 128 bytes, and of swizzle_period where the map has a swizzle.
#pragma once

#include <cstdint>

#include "cuda/tensor_map.h"
#include "cuda/words/mbarrier.cuh"

namespace suffuse::gpu {

// prefetch.tensormap
SUFFUSE_DEVICE void prefetch_tensor_map(const TensorMap& map) {
  SUFFUSE_SM90("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// cp.async.bulk.tensor, completing as bytes on `barrier`. Whoever has waited for that phase may
// read the box. The memory may be overwritten: all that read it before have told this thread.
SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1,
                                uint64_t* barrier) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(shared_address(barrier)) : "memory");
}
SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1, int c2,
                                uint64_t* barrier) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(barrier)) : "memory");
}
SUFFUSE_DEVICE void tensor_load(void* shared, const TensorMap& map, int c0, int c1, int c2, int c3,
                                uint64_t* barrier) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(shared_address(barrier)) : "memory");
}

// cp.async.bulk.tensor from shared to global memory, part of the thread's open bulk group. Ordinary
// stores to the box need fence_async by the threads that made them, and a barrier.
SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, const void* shared) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
          &map),
      "r"(c0), "r"(c1), "r"(shared_address(shared)) : "memory");
}
SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, int c2, const void* shared) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(
          &map),
      "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(shared)) : "memory");
}
SUFFUSE_DEVICE void tensor_store(const TensorMap& map, int c0, int c1, int c2, int c3,
                                 const void* shared) {
  SUFFUSE_SM90(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group"
      " [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
      "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(shared_address(shared)) : "memory");
}

// cp.async.bulk.commit_group: closes the thread's open bulk group.
SUFFUSE_DEVICE void bulk_commit() { SUFFUSE_SM90("cp.async.bulk.commit_group;" :: : "memory"); }

// cp.async.bulk.wait_group: until all but the last kPending groups of this thread are written.
template <int kPending>
SUFFUSE_DEVICE void bulk_wait() {
  SUFFUSE_SM90("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

// cp.async.bulk.wait_group.read: until their shared memory is read and may be overwritten. Before
// a thread ends it waits at least so far: the memory goes with its block.
template <int kPending>
SUFFUSE_DEVICE void bulk_wait_read() {
  SUFFUSE_SM90("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

}  // namespace suffuse::gpu
