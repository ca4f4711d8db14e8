// A scan whose rows are split over several blocks, in one pass over the data: decoupled look-back
// (Merrill and Garland 2016). A block publishes the total of its chunk, looks back over the totals
// of the chunks before it as far as a chunk whose prefix is known, and publishes its own prefix.
//
// Unlike in the paper, the totals are added up from the earlier chunk to the later one. So a prefix
// is always ((start + total 0) + total 1) + ..., wherever the look-back ended: a repeated run gives
// the same bits.
#pragma once

#include "cuda/shuffle.cuh"

namespace suffuse {

// Blocks take chunks in the order in which they start, which need not be that of blockIdx: whoever
// holds a ticket waits for holders of earlier ones alone, and those are running. The counter is 0
// before the launch; one ticket a block.
SUFFUSE_DEVICE uint32_t take_ticket(uint32_t* counter, uint32_t& shared) {
  if (threadIdx.x == 0) shared = atomicAdd(counter, 1u);
  __syncthreads();
  return shared;
}

// The chunks of one row, in global memory.
template <class T, class Op>
class LookBack {
 public:
  enum Flag : uint32_t { kNothing, kTotal, kPrefix };
  using Shared = Words<T>;

  // Bytes for `rows` rows of `chunks`, at a multiple of 4; zero before the launch.
  SUFFUSE_HD static constexpr int64_t workspace_bytes(int64_t rows, int64_t chunks) {
    return rows * chunks * (4 + 2 * static_cast<int64_t>(sizeof(T)));
  }

  SUFFUSE_DEVICE LookBack(void* workspace, int64_t rows, int64_t chunks, int64_t row) {
    plane_ = rows * chunks;
    flags_ = static_cast<uint32_t*>(workspace) + row * chunks;
    totals_ = flags_ + plane_;
    prefixes_ = totals_ + plane_ * Words<T>::kCount;
  }

  // op over `start` and the chunks before `chunk`, for all threads of the block; `total` is op over
  // the chunk itself. Another call with the same memory needs a barrier before it.
  SUFFUSE_DEVICE T prefix(Shared& shared, int chunk, T total, T start) {
    if (gpu::warp() == 0) {
      if (gpu::lane() == 0 && chunk > 0) publish(chunk, kTotal, total);
      const T before = look_back(chunk, start);
      if (gpu::lane() == 0) {
        publish(chunk, kPrefix, Op()(before, total));
        shared = to_words(before);
      }
    }
    __syncthreads();
    return from_words<T>(shared);
  }

  // By one thread: a chunk's total, or op over `start` and all chunks up to it.
  SUFFUSE_DEVICE void publish(int chunk, Flag what, T value) {
    const Words<T> words = to_words(value);
    uint32_t* place = (what == kPrefix ? prefixes_ : totals_) + chunk;
#pragma unroll
    for (int w = 0; w < Words<T>::kCount; w++) place[w * plane_] = words.word[w];
    gpu::store_release(flags_ + chunk, what);
  }

  // By one warp: op over `start` and the chunks before `chunk`, for all its lanes.
  SUFFUSE_DEVICE T look_back(int chunk, T start) {
    const int known = nearest_prefix(chunk);
    __syncwarp();  // what one lane has acquired is read by others
    T sum = known < 0 ? start : read(prefixes_, known);
    for (int first = known + 1; first < chunk; first += 32) {
      const int count = chunk - first < 32 ? chunk - first : 32, lane = gpu::lane();
      const T mine = lane < count ? read(totals_, first + lane) : Op::identity();
      for (int i = 0; i < count; i++) sum = Op()(sum, shuffle(mine, i));
    }
    return sum;
  }

 private:
  // The last chunk before `chunk` whose prefix is there, once the totals of all in between are; -1
  // if there is none.
  SUFFUSE_DEVICE int nearest_prefix(int chunk) {
    for (int last = chunk - 1; last >= 0; last -= 32) {
      const int mine = last - static_cast<int>(gpu::lane());
      const uint32_t flag = mine < 0 ? uint32_t{kPrefix} : gpu::spin_until(flags_ + mine, kTotal);
      const uint32_t found = __ballot_sync(0xffffffffu, flag == kPrefix);
      if (found) return last + 1 - __ffs(found);
    }
    return -1;
  }

  SUFFUSE_DEVICE T read(const uint32_t* values, int chunk) {
    Words<T> words;
#pragma unroll
    for (int w = 0; w < Words<T>::kCount; w++) {
      words.word[w] = values[chunk + w * plane_];
    }
    return from_words(words);
  }

  int64_t plane_;  // a value's words lie in planes of all chunks of all rows
  uint32_t *flags_, *totals_, *prefixes_;
};

}  // namespace suffuse
