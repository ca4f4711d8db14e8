// What the CUDA kernels of qk_norm have in common: a thread's columns, and sums over its row.
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/rotation.cuh"
#include "ops/qk_norm/cuda/config.h"

namespace suffuse {

template <class S>
using QkNormNumber = decltype(widen(S{}));

SUFFUSE_DEVICE float inverse_sqrt(float x) { return 1.f / ::sqrtf(x); }
SUFFUSE_DEVICE double inverse_sqrt(double x) { return 1. / ::sqrt(x); }

// A few sums at once.
template <class T, int N>
struct QkNormSums {
  T sum[N];
};
struct AddQkNormSums {
  template <class T, int N>
  SUFFUSE_DEVICE QkNormSums<T, N> operator()(const QkNormSums<T, N>& a,
                                             const QkNormSums<T, N>& b) const {
    QkNormSums<T, N> both;
#pragma unroll
    for (int i = 0; i < N; i++) both.sum[i] = a.sum[i] + b.sum[i];
    return both;
  }
};

// Adds up over the threads of a row; each gets the sums. All threads of a block call it.
template <class T, int N, bool kWide>
class QkNormReduce {
 public:
  using Sums = QkNormSums<T, N>;
  struct Nothing {};
  using Shared = std::conditional_t<kWide, typename BlockReduce<Sums>::Shared, Nothing>;

  SUFFUSE_DEVICE QkNormReduce(Shared& shared, int lanes) : reduce_(shared), lanes_(lanes) {}

  SUFFUSE_DEVICE Sums operator()(Sums sums) {
    if constexpr (kWide) {
      return reduce_(sums, AddQkNormSums());
    } else {
      for (int d = 1; d < lanes_; d *= 2) sums = AddQkNormSums()(sums, shuffle_xor(sums, d));
      return sums;
    }
  }

 private:
  struct None {
    SUFFUSE_DEVICE explicit None(Shared&) {}
  };
  std::conditional_t<kWide, BlockReduce<Sums>, None> reduce_;
  int lanes_;
};

// The columns of a thread: its slot, the weights and the angles there.
template <class S>
struct QkNormColumns {
  static constexpr int W = group_size(sizeof(S));
  using T = QkNormNumber<S>;

  ColumnSlot slot;
  T weight[2][W];
  SlotAngles<T, W> angles;

  // Threads behind the last slot have no columns.
  SUFFUSE_DEVICE QkNormColumns(const QkNormParams& p, int index)
      : slot(column_slot<W>(static_cast<int>(p.columns), static_cast<int>(p.rotated), p.interleaved,
                            index)) {}

  SUFFUSE_DEVICE void load_weight(const QkNormHeads& side) {
    const T* from = static_cast<const T*>(side.weight);
    if (from) {
      load_shared_row(from + slot.first.e, slot.first.last, weight[0]);
      load_shared_row(from + slot.second.e, slot.second.last, weight[1]);
      return;
    }
#pragma unroll
    for (int k = 0; k < W; k++) weight[0][k] = weight[1][k] = T(1);
  }

  SUFFUSE_DEVICE void load_angles(const QkNormParams& p, int64_t batch, int64_t time,
                                  bool inverse) {
    if (slot.kind == ColumnKind::plain) return;
    const int64_t row = batch * p.table_batch + time * p.table_row;
    angles.load(static_cast<const T*>(p.cos) + row, static_cast<const T*>(p.sin) + row, slot,
                inverse);
  }

  SUFFUSE_DEVICE void load(const S* head, T (&x)[2][W]) const {
    load_group(head, slot.first, x[0]);
    load_group(head, slot.second, x[1]);
  }
  SUFFUSE_DEVICE void store(S* head, const T (&x)[2][W]) const {
    store_group(head, slot.first, x[0]);
    store_group(head, slot.second, x[1]);
  }
  SUFFUSE_DEVICE void rotate(T (&x)[2][W]) const { angles.rotate(slot.kind, x[0], x[1]); }
};

template <class S>
SUFFUSE_DEVICE S* qk_norm_head(const HeadRows& rows, int64_t batch, int64_t time, int64_t head) {
  return static_cast<S*>(rows.data) + batch * rows.batch + time * rows.time + head * rows.head;
}

}  // namespace suffuse
