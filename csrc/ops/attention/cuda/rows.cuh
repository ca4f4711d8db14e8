// How queries, keys and values come to tiles in shared memory.
#pragma once

#include "cuda/tile.cuh"
#include "ops/attention/sequence.h"

namespace suffuse {

// Rows of one sequence and head in a tensor, one behind the other.
template <class S>
struct AttentionRows {
  const S* data;
  int64_t row;  // stride
  int rows, columns;
};

template <class S>
SUFFUSE_DEVICE AttentionRows<S> query_rows(const AttentionTensor& t, const AttentionSequence& s,
                                           int64_t head, int64_t columns) {
  return {static_cast<const S*>(t.data) + attention_query(t, s, 0) + head * t.head, t.row,
          static_cast<int>(s.T), static_cast<int>(columns)};
}

// Of keys or values that are not in pages.
template <class S>
SUFFUSE_DEVICE AttentionRows<S> key_rows(const AttentionTensor& t, const AttentionSequence& s,
                                         int64_t head, int64_t columns) {
  return {static_cast<const S*>(t.data) + s.k_batch * t.batch + s.k_row * t.row + head * t.head,
          t.row, static_cast<int>(s.S), static_cast<int>(columns)};
}

// Where they are if they are in pages.
struct AttentionPages {
  const int32_t* pages;  // of the sequence; null: they are not
  int64_t entry;         // stride
  uint32_t first, page;  // first row that counts, rows of a page
};

SUFFUSE_DEVICE AttentionPages attention_pages(const AttentionParams& p, const AttentionTensor& t,
                                              const AttentionSequence& s) {
  const AttentionLayout& l = p.layout;
  if (l.pages == nullptr) return {};
  return {l.pages + s.b * l.pages_row, t.batch, static_cast<uint32_t>(s.k_row),
          static_cast<uint32_t>(l.page)};
}

// Start of keys or values `index`, which is there. Of pages, rows.data is the head's in entry 0.
template <class S>
SUFFUSE_DEVICE const S* row_of(const AttentionRows<S>& rows, const AttentionPages& pages,
                               int index) {
  if (pages.pages == nullptr) return rows.data + index * rows.row;
  const uint32_t row = pages.first + index, page = row / pages.page;
  return rows.data + pages.pages[page] * pages.entry + (row - page * pages.page) * rows.row;
}

// Loads one tile after another, from row `first` on and with zeros beyond the rows and columns, by
// kThreads threads, all of the block or a warp. The caller commits and waits. This one takes rows
// at multiples of 16 bytes that lie one behind the other. Where a thread's chunks of a tile are
// below each other, it keeps one address.
template <class Tile, int kThreads>
class AlignedLoads {
  using S = typename Tile::S;
  static constexpr int kStep = kThreads / Tile::kChunks;
  static constexpr bool kBelow = kThreads % Tile::kChunks == 0 && Tile::kRows % kStep == 0;

 public:
  SUFFUSE_DEVICE AlignedLoads(const AttentionRows<S>& rows, int first)
      : rows_(rows), first_(first) {
    if constexpr (kBelow) {
      rows_.data += (first + row()) * rows.row + column();
      rows_.rows = column() < rows.columns ? rows.rows - first - row() : 0;
    }
  }

  SUFFUSE_DEVICE void next(Tile& tile) {
    if constexpr (kBelow) {
#pragma unroll
      for (int r = 0; r < Tile::kRows; r += kStep) {
        gpu::copy_async<16>(tile.at(row() + r, column()), rows_.data, r < rows_.rows);
        rows_.data += kStep * rows_.row;
      }
      rows_.rows -= Tile::kRows;
    } else {
      for_tile<Tile, kThreads, Tile::kPerChunk>([&](int r, int c) {
        const bool inside = first_ + r < rows_.rows && c < rows_.columns;
        gpu::copy_async<16>(tile.at(r, c), rows_.data + (first_ + r) * rows_.row + c, inside);
      });
      first_ += Tile::kRows;
    }
  }

 private:
  // The thread's first chunk in a tile.
  SUFFUSE_DEVICE static int row() { return threadIdx.x / Tile::kChunks; }
  SUFFUSE_DEVICE static int column() {
    return gpu::opaque(threadIdx.x) % Tile::kChunks * Tile::kPerChunk;
  }

  AttentionRows<S> rows_;  // from the thread's next chunk on, if kBelow
  int first_;
};

// The same of rows anywhere, in copies of `bytes`, 16, 4 or those of an element. Copies of 2 bytes
// go through registers: eight times the instructions, and they are waited for.
template <class Tile, int kThreads>
class AnyLoads {
  using S = typename Tile::S;

 public:
  SUFFUSE_DEVICE AnyLoads(const AttentionRows<S>& rows, int first, const AttentionPages& pages,
                          int bytes)
      : rows_(rows), pages_(pages), first_(first), bytes_(bytes) {}

  // `step`: rows to the next tile.
  SUFFUSE_DEVICE void next(Tile& tile, int step = Tile::kRows) {
    if (bytes_ == 16) {
      load<16>(tile);
    } else if (sizeof(S) == 4 || bytes_ == 4) {
      load<4>(tile);
    } else {
      load<sizeof(S)>(tile);
    }
    first_ += step;
  }

 private:
  template <int kBytes>
  SUFFUSE_DEVICE void load(Tile& tile) const {
    constexpr int kWidth = kBytes / sizeof(S), kPerRow = Tile::kColumns / kWidth;
    constexpr int kCount = Tile::kRows * kPerRow;
    const int thread = kThreads == 32 ? gpu::lane() : threadIdx.x;
#pragma unroll 1  // registers are few
    for (int i = gpu::opaque(thread); i < kCount; i += kThreads) {
      const int r = i / kPerRow, c = i % kPerRow * kWidth;
      const bool inside = first_ + r < rows_.rows && c < rows_.columns;
      const S* source = rows_.data;
      if (inside) source = row_of(rows_, pages_, first_ + r) + c;
      if constexpr (kBytes >= 4) {
        gpu::copy_async<kBytes>(tile.at(r, c), source, inside);
      } else {
        S value{};
        if (inside) value = *source;
        *tile.at(r, c) = value;
      }
    }
  }

  AttentionRows<S> rows_;
  AttentionPages pages_;
  int first_, bytes_;
};

// Loads of keys or values from `first` on.
template <class Tile, int kThreads, class S>
SUFFUSE_DEVICE AnyLoads<Tile, kThreads> any_loads(const AttentionParams& p,
                                                  const AttentionTensor& t,
                                                  const AttentionSequence& s, int64_t group,
                                                  int64_t columns, int first, int bytes) {
  const AttentionPages pages = attention_pages(p, t, s);
  AttentionRows<S> rows = key_rows<S>(t, s, group, columns);
  if (pages.pages != nullptr) rows.data = static_cast<const S*>(t.data) + group * t.head;
  return {rows, first, pages, bytes};
}

}  // namespace suffuse
