// A linear recurrence along rows, made of row tiles, block scans and look-back, for tests.
#pragma once

#include "cuda/look_back.cuh"
#include "cuda/row_tile.cuh"
#include "cuda/scan.cuh"
#include "math/linear_scan.h"

namespace suffuse {

// a, x, h [rows, length]: h_t = a_t h_{t-1} + x_t from start[row] on, or h_t = a_t h_{t+1} + x_t;
// last[row] is the h that came last.
template <class S>
struct LinearScanParams {
  const S *a, *x;
  const float* start;
  S* h;
  float* last;
  int64_t length;
  int32_t rows;
  void* workspace;  // of the rows that are split: a ticket counter, then LookBack's
};

template <class S, int kThreads, int kItems, bool kReverse>
struct LinearScan {
  using Tile = RowTile<S, kThreads, kItems, kReverse>;
  using Compose = ComposeAffine<float>;
  using Scan = BlockScan<Affine<float>, Compose>;
  using Chunks = LookBack<Affine<float>, Compose>;
  static constexpr int kTile = kThreads * kItems;

  struct Shared {
    typename Tile::Shared tile;
    typename Scan::Shared scan;
    typename Chunks::Shared prefix;
    uint32_t ticket;
  };
  struct Loaded {
    typename Tile::Loaded a, x;
  };

  SUFFUSE_DEVICE static Loaded load(const LinearScanParams<S>& p, int64_t row, int64_t window) {
    return {Tile::load(p.a + row * p.length, window, p.length, gpu::from_float<S>(1.f)),
            Tile::load(p.x + row * p.length, window, p.length)};
  }
  SUFFUSE_DEVICE static void exchange(Shared& shared, const Loaded& loaded,
                                      Affine<float> (&items)[kItems]) {
    float a[kItems], x[kItems];
    Tile::exchange(shared.tile, loaded.a, a);
    Tile::exchange(shared.tile, loaded.x, x);
#pragma unroll
    for (int i = 0; i < kItems; i++) items[i] = {a[i], x[i]};
  }
  SUFFUSE_DEVICE static void store(Shared& shared, const Affine<float> (&items)[kItems],
                                   const LinearScanParams<S>& p, int64_t row, int64_t window) {
    float h[kItems];
#pragma unroll
    for (int i = 0; i < kItems; i++) h[i] = items[i].x;
    Tile::store(shared.tile, h, p.h + row * p.length, window, p.length);
  }
  // The chunks that every row is split into: the last may lie behind its end.
  SUFFUSE_HD static constexpr int64_t chunks(int64_t length) {
    return (length + 32 / sizeof(S) - 1 + kTile - 1) / kTile;
  }
};

// A block for each row. The launch bound of one block keeps compilers from spilling registers so
// that another fits.
template <class S, int kThreads, int kItems, bool kReverse>
__global__ void __launch_bounds__(kThreads, 1) linear_scan_kernel(const LinearScanParams<S> p) {
  using Kernel = LinearScan<S, kThreads, kItems, kReverse>;
  auto& shared = gpu::shared<typename Kernel::Shared>();
  typename Kernel::Scan scan(shared.scan);
  const int64_t row = blockIdx.x, first = first_window(p.x + row * p.length);
  const int64_t windows = (p.length - first + Kernel::kTile - 1) / Kernel::kTile;
  const auto window = [&](int64_t i) {
    return first + (kReverse ? windows - 1 - i : i) * Kernel::kTile;
  };

  Affine<float> carry = {1.f, p.start[row]};
  auto loaded = Kernel::load(p, row, window(0));
  for (int64_t i = 0; i < windows; i++) {
    Affine<float> items[kItems];
    Kernel::exchange(shared, loaded, items);
    if (i + 1 < windows) loaded = Kernel::load(p, row, window(i + 1));
    scan.inclusive(items, carry);
    Kernel::store(shared, items, p, row, window(i));
  }
  if (threadIdx.x == 0) p.last[row] = carry.x;
}

// A block for each chunk of each row.
template <class S, int kThreads, int kItems, bool kReverse>
__global__ void __launch_bounds__(kThreads, 1)
    linear_scan_split_kernel(const LinearScanParams<S> p) {
  using Kernel = LinearScan<S, kThreads, kItems, kReverse>;
  using Scan = typename Kernel::Scan;
  auto& shared = gpu::shared<typename Kernel::Shared>();
  auto* words = static_cast<uint32_t*>(p.workspace);
  const uint32_t ticket = take_ticket(words, shared.ticket);
  const int chunks = static_cast<int>(Kernel::chunks(p.length));
  const int64_t row = ticket % p.rows;
  const int chunk = ticket / p.rows;
  const int64_t window = first_window(p.x + row * p.length) +
                         (kReverse ? chunks - 1 - chunk : chunk) * int64_t{Kernel::kTile};

  Affine<float> items[kItems];
  Kernel::exchange(shared, Kernel::load(p, row, window), items);
  const auto block = Scan(shared.scan)(Scan::combine(items));
  typename Kernel::Chunks look_back(words + 1, p.rows, chunks, row);
  const Affine<float> start = {1.f, p.start[row]};
  const Affine<float> before = look_back.prefix(shared.prefix, chunk, block.total, start);
  const typename Kernel::Compose op;
  Scan::inclusive_from(op(before, block.before), items);
  Kernel::store(shared, items, p, row, window);
  if (chunk == chunks - 1 && threadIdx.x == 0) p.last[row] = op(before, block.total).x;
}

}  // namespace suffuse
