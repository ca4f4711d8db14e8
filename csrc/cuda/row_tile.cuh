// Windows of a row between global memory, where neighbouring lanes move neighbouring 16-byte
// vectors, and registers, where a thread has kItems elements that follow each other. Each warp
// transposes its own part in shared memory, so no block barrier is needed.
//
// The windows of a row are kThreads * kItems elements long and start at first_window(row), which
// may be some elements before the row: all vectors but the outermost are then aligned, however the
// row lies. An operand that lies differently is read and written element by element.
#pragma once

#include <string.h>

#include "cuda/groups.cuh"

namespace suffuse {

// The start of a row's first window, <= 0, at a multiple of 32 bytes.
template <class S>
SUFFUSE_HD int64_t first_window(const S* row) {
  return -static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 32 / sizeof(S));
}

// kReverse: the first thread has the window's last elements, and all threads theirs from the last
// to the first.
template <class S, int kThreads, int kItems, bool kReverse = false>
class RowTile {
 public:
  static constexpr int kPerVector = 16 / sizeof(S), kVectors = kItems / kPerVector;
  static_assert(kItems % kPerVector == 0 && (kVectors & (kVectors - 1)) == 0 && kVectors <= 8);

  struct Shared {
    uint4 vectors[kThreads * kVectors];
  };
  // What a thread has loaded and not yet exchanged: loads of the next window may be on their way.
  struct Loaded {
    uint4 vectors[kVectors];
  };

  // `length` elements are in the row; those of the window outside of it become `fill`.
  SUFFUSE_DEVICE static Loaded load(const S* row, int64_t window, int64_t length, S fill = S{}) {
    Loaded loaded;
    const bool aligned = reinterpret_cast<uintptr_t>(row + window) % 16 == 0;
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const Group group = group_of(striped(i), window, length);
      if (aligned && group.last - group.first == kPerVector) {
        loaded.vectors[i] = gpu::load_vector_once<uint4>(row + group.e);
      } else {
        loaded.vectors[i] = load_elements(row + group.e, group, fill);
      }
    }
    return loaded;
  }

  // The thread's own elements: float for types of 2 bytes, else of S's size. Other windows may take
  // the same shared memory next.
  template <class T>
  SUFFUSE_DEVICE static void exchange(Shared& shared, const Loaded& loaded, T (&items)[kItems]) {
    __syncwarp();  // the warp has read what it last had there
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      gpu::store_vector(&shared.vectors[place(striped(i))], loaded.vectors[i]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      T values[kPerVector];
      unpack_group<S>(gpu::load_vector<uint4>(&shared.vectors[place(blocked(i))]), values);
#pragma unroll
      for (int k = 0; k < kPerVector; k++) items[item(i, k)] = values[k];
    }
  }

  // Writes the elements of the window that are in the row.
  template <class T>
  SUFFUSE_DEVICE static void store(Shared& shared, const T (&items)[kItems], S* row, int64_t window,
                                   int64_t length) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      T values[kPerVector];
#pragma unroll
      for (int k = 0; k < kPerVector; k++) values[k] = items[item(i, k)];
      gpu::store_vector(&shared.vectors[place(blocked(i))], pack_group<S, uint4>(values));
    }
    __syncwarp();
    const bool aligned = reinterpret_cast<uintptr_t>(row + window) % 16 == 0;
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const Group group = group_of(striped(i), window, length);
      const uint4 vector = gpu::load_vector<uint4>(&shared.vectors[place(striped(i))]);
      if (aligned && group.last - group.first == kPerVector) {
        gpu::store_vector(row + group.e, vector);
      } else {
        store_elements(row + group.e, group, vector);
      }
    }
  }

 private:
  // The vectors of a window are numbered in the order of memory. A warp has 32 kVectors of them:
  // striped, lane after lane; blocked, kVectors a lane.
  SUFFUSE_DEVICE static int first_vector() {
    const int warp = kReverse ? kThreads / 32 - 1 - gpu::warp() : gpu::warp();
    return warp * 32 * kVectors;
  }
  SUFFUSE_DEVICE static int striped(int i) { return first_vector() + i * 32 + gpu::lane(); }
  SUFFUSE_DEVICE static int blocked(int i) {
    const int lane = kReverse ? 31 - gpu::lane() : gpu::lane();
    return first_vector() + lane * kVectors + i;
  }
  SUFFUSE_DEVICE static constexpr int item(int i, int k) {
    return kReverse ? kItems - 1 - (i * kPerVector + k) : i * kPerVector + k;
  }

  // Where in shared memory a vector lies. The 8 vectors of a line of all banks change places by the
  // number of their line, so that 8 lanes of either order touch each bank once.
  SUFFUSE_DEVICE static int place(int vector) { return vector ^ (vector >> 3 & 7); }

  // The elements of a vector that are in the row.
  SUFFUSE_DEVICE static Group group_of(int vector, int64_t window, int64_t length) {
    const int64_t e = window + vector * kPerVector, left = length - e;
    return {e, e < 0 ? static_cast<int>(-e) : 0,
            left < kPerVector ? static_cast<int>(left) : kPerVector};
  }
  SUFFUSE_DEVICE static uint4 load_elements(const S* from, const Group& group, S fill) {
    S values[kPerVector];
#pragma unroll
    for (int k = 0; k < kPerVector; k++) {
      values[k] = fill;
      if (k >= group.first && k < group.last) values[k] = from[k];
    }
    uint4 vector;
    memcpy(&vector, values, sizeof vector);
    return vector;
  }
  SUFFUSE_DEVICE static void store_elements(S* to, const Group& group, uint4 vector) {
    S values[kPerVector];
    memcpy(values, &vector, sizeof vector);
#pragma unroll
    for (int k = 0; k < kPerVector; k++) {
      if (k >= group.first && k < group.last) to[k] = values[k];
    }
  }
};

}  // namespace suffuse
