// Reductions over the lanes of a warp and the threads of a block.
//
// An operator is an associative function object; it need not commute: values are taken in the order
// of the lanes and threads. The tree depends on the number of threads alone, so a repeated run
// gives the same bits. T is of whole 32-bit words.
#pragma once

#include <limits>

#include "cuda/shuffle.cuh"

namespace suffuse {

template <class T>
struct Sum {
  SUFFUSE_HD static T identity() { return T(0); }
  SUFFUSE_HD T operator()(T a, T b) const { return a + b; }
};

// NaN where one of the two is.
template <class T>
struct Max {
  using Limits = std::numeric_limits<T>;
  static constexpr T kLowest = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  SUFFUSE_HD static T identity() { return kLowest; }
  SUFFUSE_HD T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

// NaN where one of the two is.
template <class T>
struct Min {
  using Limits = std::numeric_limits<T>;
  static constexpr T kHighest = Limits::has_infinity ? Limits::infinity() : Limits::max();
  SUFFUSE_HD static T identity() { return kHighest; }
  SUFFUSE_HD T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

// op over groups of kLanes neighbouring lanes, a power of two; each lane gets its group's.
template <int kLanes = 32, class T, class Op>
SUFFUSE_DEVICE T warp_reduce(T value, Op op) {
  static_assert(kLanes >= 1 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0);
#pragma unroll
  for (int d = 1; d < kLanes; d *= 2) {
    const T other = shuffle_xor(value, d);
    value = gpu::lane() & d ? op(other, value) : op(value, other);
  }
  return value;
}

// op over the values of lanes 0 to count - 1, for all lanes. The others' values are not used.
template <class T, class Op>
SUFFUSE_DEVICE T warp_reduce_first(T value, int count, Op op) {
  const int lane = gpu::lane();
  for (int d = 1; d < count; d *= 2) {
    const T other = shuffle_xor(value, d);
    const bool there = ((lane & ~(d - 1)) ^ d) < count;  // the group of d lanes that `other` is of
    if (there) value = lane & d ? op(other, value) : op(value, other);
  }
  return shuffle(value, 0);
}

// Reductions over a block of whole warps, one barrier each. Calls in a row may share the memory:
// they take turns in its halves.
template <class T>
class BlockReduce {
 public:
  struct Shared {
    LaneArray<T> warps[2];
  };

  SUFFUSE_DEVICE explicit BlockReduce(Shared& shared) : shared_(shared) {}

  // op over the values of all threads, for all threads.
  template <class Op>
  SUFFUSE_DEVICE T operator()(T value, Op op) {
    LaneArray<T>& warps = shared_.warps[turn_];
    turn_ ^= 1;
    const int lane = gpu::lane(), count = blockDim.x * blockDim.y * blockDim.z / 32;
    value = warp_reduce(value, op);
    if (lane == 0) put(warps, gpu::warp(), value);
    __syncthreads();
    return warp_reduce_first(get(warps, lane < count ? lane : 0), count, op);
  }

 private:
  Shared& shared_;
  int turn_ = 0;
};

}  // namespace suffuse
