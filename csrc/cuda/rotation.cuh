// The columns of a slot, their angles and their rotation. cuda/rotation.h says what a slot is.
#pragma once

#include <limits>

#include "cuda/groups.cuh"
#include "cuda/rotation.h"
#include "math/scalar.h"

namespace suffuse {

enum class ColumnKind { halves, adjacent, plain };

struct ColumnSlot {
  Group first, second;
  ColumnKind kind;
};

// The columns from e on, as far as `end`.
template <int W>
SUFFUSE_DEVICE Group columns_from(int e, int end) {
  const int left = end - e;
  return {e, 0, left < 0 ? 0 : left < W ? left : W};
}

// No columns behind the last slot.
template <int W>
SUFFUSE_DEVICE ColumnSlot column_slot(int columns, int rotated, bool interleaved, int slot) {
  const int turned = rotated_slots(rotated, W), at = slot * W, pairs = rotated / 2;
  if (slot < turned && interleaved) {
    return {columns_from<W>(at, rotated), columns_from<W>(turned * W + at, rotated),
            ColumnKind::adjacent};
  }
  if (slot < turned) {
    return {columns_from<W>(at, pairs), columns_from<W>(pairs + at, rotated), ColumnKind::halves};
  }
  const int rest = rotated + at - turned * W;
  const int far = groups_of((columns - rotated + 1) / 2, W) * W, middle = rotated + far;
  return {columns_from<W>(rest, middle < columns ? middle : columns),
          columns_from<W>(rest + far, columns), ColumnKind::plain};
}

// `count` numbers of N at p, where other threads read them too; the others are 0.
template <class C, class T, int N>
SUFFUSE_DEVICE void load_shared_row(const C* p, int count, T (&out)[N]) {
  constexpr int kBytes = N * sizeof(C), kWords = kBytes > 16 ? kBytes / 16 : 1, kEach = N / kWords;
  using Word = GroupWord<kBytes / kWords>;
  if (count == N && is_aligned<Word>(p)) {
#pragma unroll
    for (int i = 0; i < kWords; i++) {
      T part[kEach];
      unpack_group<C>(gpu::load_vector<Word>(p + i * kEach), part);
#pragma unroll
      for (int k = 0; k < kEach; k++) out[i * kEach + k] = part[k];
    }
  } else {
#pragma unroll
    for (int k = 0; k < N; k++) out[k] = k < count ? T(widen(p[k])) : T(0);
  }
}

// Cosines and sines of a slot's W pairs.
template <class T, int W>
struct SlotAngles {
  static constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
  T cos[W], sin[W];

  // From a row of the tables; null: NaN.
  template <class C>
  SUFFUSE_DEVICE void load(const C* cos_row, const C* sin_row, const ColumnSlot& slot,
                           bool inverse) {
    if (cos_row) {
      load_row(cos_row, slot, cos);
      load_row(sin_row, slot, sin);
    }
#pragma unroll
    for (int k = 0; k < W; k++) {
      if (!cos_row) cos[k] = sin[k] = kNan;
      if (inverse) sin[k] = -sin[k];
    }
  }

  // The two groups of a slot.
  SUFFUSE_DEVICE void rotate(ColumnKind kind, T (&a)[W], T (&b)[W]) const {
    if (kind == ColumnKind::halves) {
#pragma unroll
      for (int k = 0; k < W; k++) rotate_pair(a[k], b[k], k);
    } else if (kind == ColumnKind::adjacent) {
#pragma unroll
      for (int k = 0; k < W / 2; k++) {
        rotate_pair(a[2 * k], a[2 * k + 1], k);
        rotate_pair(b[2 * k], b[2 * k + 1], W / 2 + k);
      }
    }
  }

 private:
  SUFFUSE_DEVICE void rotate_pair(T& a, T& b, int k) const {
    const T first = fma(-b, sin[k], a * cos[k]);
    b = fma(a, sin[k], b * cos[k]);
    a = first;
  }

  template <class C>
  SUFFUSE_DEVICE static void load_row(const C* row, const ColumnSlot& slot, T (&out)[W]) {
    if (slot.kind == ColumnKind::halves)
      return load_shared_row(row + slot.first.e, slot.first.last, out);
    T first[W / 2], second[W / 2];
    load_shared_row(row + slot.first.e / 2, slot.first.last / 2, first);
    load_shared_row(row + slot.second.e / 2, slot.second.last / 2, second);
#pragma unroll
    for (int k = 0; k < W / 2; k++) {
      out[k] = first[k];
      out[W / 2 + k] = second[k];
    }
  }
};

}  // namespace suffuse
