// Scans over the lanes of a warp and the threads of a block, with a carry from tile to tile.
//
// An operator is an associative function object with identity(), not necessarily commutative:
// values are taken in the order of the threads, and of a thread's items. The tree depends on the
// number of threads alone, so a repeated run gives the same bits. T is of whole 32-bit words.
#pragma once

#include "cuda/shuffle.cuh"

namespace suffuse {

// op over the values of the lanes up to each, it included; right in the first `count` lanes.
template <class T, class Op>
SUFFUSE_DEVICE T warp_scan(T value, Op op, int count = 32) {
  const int lane = gpu::lane();
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    if (d >= count) break;
    const T earlier = shuffle_up(value, d);
    if (lane >= d) value = op(earlier, value);
  }
  return value;
}

// Scans over a block of whole warps, one barrier each. Calls in a row may share the memory: they
// take turns in its halves.
template <class T, class Op>
class BlockScan {
 public:
  struct Shared {
    LaneArray<T> warps[2];
  };
  struct Result {
    T before;  // op over the threads before this one; identity in the first
    T total;   // of all
  };

  SUFFUSE_DEVICE explicit BlockScan(Shared& shared) : shared_(shared) {}

  SUFFUSE_DEVICE Result operator()(T mine) {
    const Op op;
    LaneArray<T>& warps = shared_.warps[turn_];
    turn_ ^= 1;
    const int lane = gpu::lane(), warp = gpu::warp();
    const int count = blockDim.x * blockDim.y * blockDim.z / 32;
    const T sum = warp_scan(mine, op);
    if (lane == 31) put(warps, warp, sum);
    T before = shuffle_up(sum, 1);
    if (lane == 0) before = Op::identity();
    __syncthreads();
    // Each warp scans the warps' totals for itself, which takes less time than another barrier.
    const T sums = warp_scan(get(warps, lane < count ? lane : 0), op, count);
    const T earlier = shuffle(sums, warp == 0 ? 0 : warp - 1);
    if (warp > 0) before = op(earlier, before);
    return {before, shuffle(sums, count - 1)};
  }

  // Replaces each item by op over carry, all items of earlier threads and the thread's own up to
  // it; carry, the same in all threads, goes on to op over itself and the items of all.
  template <int kItems>
  SUFFUSE_DEVICE void inclusive(T (&items)[kItems], T& carry) {
    const Result block = (*this)(combine(items));
    inclusive_from(Op()(carry, block.before), items);
    carry = Op()(carry, block.total);
  }

  // op over a thread's items.
  template <int kItems>
  SUFFUSE_DEVICE static T combine(const T (&items)[kItems]) {
    T sum = items[0];
#pragma unroll
    for (int i = 1; i < kItems; i++) sum = Op()(sum, items[i]);
    return sum;
  }

  // Replaces each item by op over `before` and the items up to it.
  template <int kItems>
  SUFFUSE_DEVICE static void inclusive_from(T before, T (&items)[kItems]) {
#pragma unroll
    for (int i = 0; i < kItems; i++) items[i] = before = Op()(before, items[i]);
  }

 private:
  Shared& shared_;
  int turn_ = 0;
};

}  // namespace suffuse
