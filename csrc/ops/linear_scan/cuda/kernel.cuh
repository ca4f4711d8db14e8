// linear_scan on CUDA: one pass over rows of adjacent steps, windows of them in registers.
#pragma once

#include "cuda/look_back.cuh"
#include "cuda/row_tile.cuh"
#include "cuda/scan.cuh"
#include "ops/linear_scan/cuda/config.h"
#include "ops/linear_scan/cuda/steps.cuh"

namespace suffuse {

// One row. A: type of a; S: of x and h.
template <class A, class S>
struct LinearScanRow {
  using T = LinearScanNumber<S>;

  SUFFUSE_DEVICE LinearScanRow(const LinearScanParams& p, int64_t row)
      : length(p.length), constant(p.a.time == 0), lagged(p.lagged) {
    const int64_t batch = row / p.channels, channel = row - batch * p.channels;
    a = static_cast<const A*>(p.a.data) + batch * p.a.batch + channel * p.a.channel;
    x = static_cast<const S*>(p.x.data) + batch * p.x.batch + channel * p.x.channel;
    h = static_cast<S*>(p.h.data) + batch * p.h.batch + channel * p.h.channel;
    sequence = p.sequence ? p.sequence + batch * length : nullptr;
    initial = p.initial ? static_cast<const T*>(p.initial)[row] : T{};
    last = static_cast<T*>(p.last) + row;
    decay = constant && length > 0 ? number(*a) : one<T>();
  }

  SUFFUSE_DEVICE bool has(int64_t t) const { return t >= 0 && t < length; }

  static SUFFUSE_DEVICE T number(A value) {
    if constexpr (sizeof(A) <= 4) {
      return gpu::to_float(value);
    } else {
      return value;
    }
  }

  const A* a;
  const S* x;
  S* h;
  const int32_t* sequence;
  int64_t length;
  bool constant, lagged;
  T initial, decay;  // decay: of all steps, if constant
  T* last;
};

template <class A, class S, int kThreads, bool kReverse>
struct LinearScan {
  using T = LinearScanNumber<S>;
  using Row = LinearScanRow<A, S>;
  static constexpr int kItems = linear_scan_items(sizeof(S)), kTile = kThreads * kItems;
  using Items = LinearItems<T, kItems>;
  using Decays = RowTile<A, kThreads, kItems, kReverse>;
  using Tile = RowTile<S, kThreads, kItems, kReverse>;
  using Indices = RowTile<int32_t, kThreads, kItems, kReverse>;
  using Compose = ComposeLinearSteps<T>;
  using Scan = BlockScan<LinearSteps<T>, Compose>;
  using Chunks = LookBack<LinearSteps<T>, Compose>;

  // Tiles of types of other sizes give a warp other vectors, so each has its own.
  struct Shared {
    typename Decays::Shared decays;
    typename Tile::Shared tile;
    typename Indices::Shared indices;
    typename Scan::Shared scan;
    typename Chunks::Shared prefix;
    uint32_t ticket;
  };
  struct Loaded {
    typename Decays::Loaded a;
    typename Tile::Loaded x;
  };

  // Where the i-th of n windows starts.
  SUFFUSE_DEVICE static int64_t window(const Row& row, int64_t i, int64_t n) {
    return first_window(row.x) + (kReverse ? n - 1 - i : i) * kTile;
  }

  // Elements outside of the row leave the state as it is.
  SUFFUSE_DEVICE static Loaded load(const Row& row, int64_t window) {
    Loaded loaded = {};
    if (!row.constant) loaded.a = Decays::load(row.a, window, row.length, unit());
    loaded.x = Tile::load(row.x, window, row.length);
    return loaded;
  }
  SUFFUSE_DEVICE static Items exchange(Shared& shared, const Row& row, const Loaded& loaded,
                                       int64_t window) {
    Items items;
    if (row.constant) {
#pragma unroll
      for (int i = 0; i < kItems; i++) {
        items.a[i] = row.has(step(window, i)) ? row.decay : one<T>();
      }
    } else {
      Decays::exchange(shared.decays, loaded.a, items.a);
    }
    Tile::exchange(shared.tile, loaded.x, items.x);
    items.restarts = row.sequence ? restarts(shared, row, window) : 0;
    return items;
  }

  // Replaces the state before the thread's steps by the one after them, and stores h.
  SUFFUSE_DEVICE static void finish(Shared& shared, const Row& row, const Items& items, T state,
                                    int64_t window) {
    T h[kItems];
#pragma unroll
    for (int i = 0; i < kItems; i++) h[i] = items.take(i, row.lagged, state);
    Tile::store(shared.tile, h, row.h, window, row.length);
  }

 private:
  // The thread's i-th step.
  SUFFUSE_DEVICE static int64_t step(int64_t window, int i) {
    const int place = static_cast<int>(threadIdx.x) * kItems + i;
    return window + (kReverse ? kTile - 1 - place : place);
  }

  SUFFUSE_DEVICE static A unit() {
    if constexpr (sizeof(A) <= 4) {
      return gpu::from_float<A>(1.f);
    } else {
      return one<A>();
    }
  }

  // Bit i: the thread's step i is of another sequence than the one before it.
  SUFFUSE_DEVICE static uint32_t restarts(Shared& shared, const Row& row, int64_t window) {
    int32_t index[kItems];
    Indices::exchange(shared.indices, Indices::load(row.sequence, window, row.length), index);
    constexpr int kBack = kReverse ? 1 : -1;
    int32_t before = shuffle_up(index[kItems - 1], 1);
    const int64_t earlier = step(window, 0) + kBack;
    if (gpu::lane() == 0 && row.has(earlier)) before = row.sequence[earlier];
    uint32_t found = 0;
#pragma unroll
    for (int i = 0; i < kItems; i++) {
      const int64_t t = step(window, i);
      const bool differs = index[i] != before && row.has(t) && row.has(t + kBack);
      found |= static_cast<uint32_t>(differs) << i;
      before = index[i];
    }
    return found;
  }
};

// Blocks of all kernels leave room for 512 threads on a multiprocessor: 128 registers each, with
// which nothing is spilled.
template <int kThreads>
constexpr int kLinearScanBlocks = 512 / kThreads;

// A block for each row.
template <class A, class S, int kThreads, bool kReverse>
__global__ void __launch_bounds__(kThreads, kLinearScanBlocks<kThreads>)
    linear_scan_kernel(const LinearScanParams p) {
  using Kernel = LinearScan<A, S, kThreads, kReverse>;
  auto& shared = gpu::shared<typename Kernel::Shared>();
  typename Kernel::Scan scan(shared.scan);
  const typename Kernel::Row row(p, blockIdx.x);
  const int64_t windows = (row.length - first_window(row.x) + Kernel::kTile - 1) / Kernel::kTile;
  typename Kernel::T state = row.initial;
  auto loaded = Kernel::load(row, Kernel::window(row, 0, windows));
  for (int64_t i = 0; i < windows; i++) {
    const int64_t window = Kernel::window(row, i, windows);
    const auto items = Kernel::exchange(shared, row, loaded, window);
    if (i + 1 < windows) loaded = Kernel::load(row, Kernel::window(row, i + 1, windows));
    const auto block = scan(items.all(row.lagged));
    Kernel::finish(shared, row, items, apply(block.before, state), window);
    state = apply(block.total, state);
  }
  if (threadIdx.x == 0) *row.last = state;
}

// A block for each chunk of each row. workspace: a ticket counter, then LookBack's; 0 before.
template <class A, class S, bool kReverse>
__global__ void __launch_bounds__(kLinearScanThreads, kLinearScanBlocks<kLinearScanThreads>)
    linear_scan_split_kernel(const LinearScanParams p, void* workspace) {
  using Kernel = LinearScan<A, S, kLinearScanThreads, kReverse>;
  auto& shared = gpu::shared<typename Kernel::Shared>();
  auto* words = static_cast<uint32_t*>(workspace);
  const uint32_t ticket = take_ticket(words, shared.ticket);
  const auto rows = static_cast<uint32_t>(p.batch * p.channels);
  const int chunks = static_cast<int>(linear_scan_chunks(p.length, sizeof(S)));
  const int chunk = static_cast<int>(ticket / rows);
  const typename Kernel::Row row(p, ticket % rows);
  const int64_t window = Kernel::window(row, chunk, chunks);

  const auto items = Kernel::exchange(shared, row, Kernel::load(row, window), window);
  const auto block = typename Kernel::Scan(shared.scan)(items.all(row.lagged));
  typename Kernel::Chunks look_back(words + 1, rows, chunks, ticket % rows);
  auto start = Kernel::Compose::identity();
  start.x = row.initial;
  const auto state = look_back.prefix(shared.prefix, chunk, block.total, start).x;
  Kernel::finish(shared, row, items, apply(block.before, state), window);
  if (chunk == chunks - 1 && threadIdx.x == 0) *row.last = apply(block.total, state);
}

template <class A, class S, int kThreads>
LaunchShape linear_scan_shape(int64_t blocks) {
  using Shared = typename LinearScan<A, S, kThreads, false>::Shared;
  return {blocks, kThreads, static_cast<int32_t>(sizeof(Shared))};
}

// Calls fn(name, kernel, shape, arguments...) for the launch that p asks for.
template <class A, class S, bool kReverse, class Fn>
void with_linear_scan_kernel(const LinearScanParams& p, void* workspace, Fn&& fn) {
  constexpr int kLong = kLinearScanThreads, kShort = kLinearScanShortThreads;
  const int64_t rows = p.batch * p.channels;
  switch (linear_scan_form(p)) {
    case LinearScanForm::short_rows:
      return fn("the kernel of short rows", linear_scan_kernel<A, S, kShort, kReverse>,
                linear_scan_shape<A, S, kShort>(rows), p);
    case LinearScanForm::rows:
      return fn("the kernel of rows", linear_scan_kernel<A, S, kLong, kReverse>,
                linear_scan_shape<A, S, kLong>(rows), p);
    case LinearScanForm::split:
      return fn("the kernel of split rows", linear_scan_split_kernel<A, S, kReverse>,
                linear_scan_shape<A, S, kLong>(rows * linear_scan_chunks(p.length, sizeof(S))), p,
                workspace);
  }
}

// Words of 4 bytes, 0 before the launch, that the kernel needs.
inline int64_t linear_scan_workspace_words(const LinearScanParams& p) {
  if (linear_scan_form(p) != LinearScanForm::split) return 0;
  const int64_t rows = p.batch * p.channels;
  const int64_t chunks = linear_scan_chunks(p.length, linear_scan_bytes(p));
  int64_t words = 0;
  visit_linear_scan(p, [&](auto, auto tag) {
    using T = LinearScanNumber<typename decltype(tag)::type>;
    words = 1 + LookBack<LinearSteps<T>, ComposeLinearSteps<T>>::workspace_bytes(rows, chunks) / 4;
  });
  return words;
}

}  // namespace suffuse
