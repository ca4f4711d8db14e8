// Asks for memory before the selective scan comes to it.
#pragma once

#include "ops/selective_scan/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// What a block reads and writes next. Rows lie too far apart for a processor to see that they are
// walked along together, so the next tile is asked for while this one is computed, at each step a
// row of two tensors: more at a time would wait for each other.
class Ahead {
 public:
  // Two tensors' rows, one at each step. Into the second cache: in the first, rows a power of two
  // apart push each other out.
  struct Pair {
    const char *first, *second;
    int64_t first_row, second_row, size;

    // From step i on: rows of many steps have several lines.
    SUFFUSE_INLINE void go(int i) {
      __builtin_prefetch(first, 0, 2);
      __builtin_prefetch(second, 0, 2);
      first += first_row;
      second += second_row;
      if ((i + 1) % kScanLanes) return;
      first += kScanLanes * (size - first_row);
      second += kScanLanes * (size - second_row);
    }
  };

  // Rows of which steps are adjacent, at step `begin`.
  template <class S>
  SUFFUSE_INLINE void add(const ScanRows& rows, const Lanes& at, int64_t begin) {
    if (!rows.data || rows.time != 1) return;
    data_[count_] = reinterpret_cast<const char*>(first_row<S>(rows, at, begin));
    row_[count_++] = rows.channel * static_cast<int64_t>(sizeof(S));
    size_ = sizeof(S);
  }
  // Those of one pass through the steps; where there is nothing left, this object itself.
  SUFFUSE_INLINE Pair pair(int pass) const {
    const char* const self = reinterpret_cast<const char*>(this);
    const int k = 2 * pass;
    return {k < count_ ? data_[k] : self, k + 1 < count_ ? data_[k + 1] : self,
            k < count_ ? row_[k] : 0, k + 1 < count_ ? row_[k + 1] : 0, size_};
  }
  // Those that so many passes have left.
  SUFFUSE_INLINE void rest(int passes) const {
    for (int k = 2 * passes; k < count_; k++) {
      for (int i = 0; i < kScanLanes; i++) __builtin_prefetch(data_[k] + i * row_[k], 0, 2);
    }
  }

 private:
  static constexpr int kMost = 8;
  const char* data_[kMost];
  int64_t row_[kMost], size_ = 0;
  int count_ = 0;
};

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
