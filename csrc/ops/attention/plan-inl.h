// How a call on the CPU is cut into units of work, and what no unit writes. Part of bind.cpp, which
// has included torch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ops/attention/sequence.h"
#include "torch/checks.h"

namespace suffuse {
namespace {

constexpr int64_t kRowStep = 64;       // block lengths are multiples of every panel's
constexpr int64_t kScratch = 1 << 20;  // bytes of a thread's panels: about the L2 cache
constexpr int64_t kGrain = 400000;     // multiply-adds that are worth a task of their own

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Runs fn on ranges of the units, each thread taking the next range when it is done with its last.
template <class Fn>
void run_units(int64_t units, int64_t work_of_one, Fn fn) {
  const int64_t grain = kGrain / (work_of_one + 1) + 1;
  const int64_t threads =
      std::min<int64_t>(torch::stable::get_num_threads(), ceil_div(units, grain));
  if (threads <= 1) {
    if (units > 0) fn(0, units);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(grain)) < units;) fn(i, std::min(units, i + grain));
  });
}

// Blocks of equal length, at most `rows` queries, and as many as `units` asks for in all if T is
// long enough.
inline void cut_into_blocks(AttentionParams& p, int64_t bytes_per_row, int64_t pairs,
                            int64_t units) {
  int64_t rows =
      std::clamp(kScratch / bytes_per_row / kRowStep, int64_t{1}, int64_t{16}) * kRowStep;
  while (rows > kRowStep && pairs * ceil_div(p.T, rows) < units) {
    rows = ceil_div(rows / 2, kRowStep) * kRowStep;
  }
  p.blocks = ceil_div(p.T, rows);
  p.block_rows = p.blocks == 0 ? kRowStep : ceil_div(ceil_div(p.T, p.blocks), kRowStep) * kRowStep;
  p.blocks = ceil_div(p.T, p.block_rows);
}

// The lengths of packed or partly used rows, which on the CPU can be read.
struct Lengths {
  const int32_t *starts, *used;
  int64_t count, rows;  // sequences; rows of the tensor

  bool varied() const { return starts != nullptr || used != nullptr; }
  int64_t room(int64_t b) const {
    return starts == nullptr ? rows : int64_t{starts[b + 1]} - starts[b];
  }
  int64_t of(int64_t b) const { return used == nullptr ? room(b) : used[b]; }

  // Returns the longest length that the call may have: `given`, or the largest room.
  int64_t check(const char* op, const std::string& side,
                const std::optional<int64_t>& given) const {
    if (starts == nullptr && given) {
      fail(op, "max_seqlen_" + side, "None without cu_seqlens_" + side, std::to_string(*given));
    }
    int64_t longest = starts == nullptr ? rows : 0;
    if (starts != nullptr && (starts[0] < 0 || starts[count] > rows)) {
      fail(op, "cu_seqlens_" + side, "offsets in [0, " + std::to_string(rows) + "]",
           std::to_string(starts[0]) + " to " + std::to_string(starts[count]));
    }
    for (int64_t b = 0; b < count; b++) {
      if (room(b) < 0) {
        fail(op, "cu_seqlens_" + side, "offsets that do not fall",
             std::to_string(starts[b + 1]) + " after " + std::to_string(starts[b]));
      }
      if (of(b) < 0 || of(b) > room(b)) {
        fail(op, "seqused_" + side, "lengths in [0, " + std::to_string(room(b)) + "]",
             std::to_string(of(b)));
      }
      longest = std::max(longest, room(b));
    }
    if (given && *given < longest) {
      fail(op, "max_seqlen_" + side, "at least the longest length, " + std::to_string(longest),
           std::to_string(*given));
    }
    return given ? *given : longest;
  }

  // Calls fn(batch entry, first row, last row + 1) for the rows of no sequence.
  template <class Fn>
  void gaps(Fn fn) const {
    if (starts == nullptr) {
      for (int64_t b = 0; b < count; b++)
        if (of(b) < rows) fn(b, of(b), rows);
      return;
    }
    int64_t done = 0;
    for (int64_t b = 0; b < count; b++) {
      if (done < starts[b]) fn(0, done, starts[b]);
      done = starts[b] + of(b);
    }
    if (done < rows) fn(0, done, rows);
  }
};

inline Lengths query_lengths(const AttentionParams& p, int64_t rows) {
  return {p.layout.q_starts, p.layout.q_used, p.B, rows};
}
inline Lengths key_lengths(const AttentionParams& p, int64_t rows) {
  return {p.layout.k_starts, p.layout.k_used, p.B, rows};
}

// Makes the rows of no sequence 0 in a contiguous result.
inline void clear_gaps(const Lengths& lengths, const Tensor& t) {
  if (!lengths.varied()) return;
  const int64_t row = t.size(2) * t.size(3) * t.element_size();
  char* const data = static_cast<char*>(t.mutable_data_ptr());
  lengths.gaps([&](int64_t batch, int64_t begin, int64_t end) {
    std::memset(data + (batch * lengths.rows + begin) * row, 0,
                static_cast<size_t>((end - begin) * row));
  });
}
template <class N>
void clear_lse_gaps(const Lengths& lengths, N* lse, int64_t heads) {
  lengths.gaps([&](int64_t batch, int64_t begin, int64_t end) {
    for (int64_t h = 0; h < heads; h++) {
      N* const row = lse + (batch * heads + h) * lengths.rows;
      std::fill(row + begin, row + end, -std::numeric_limits<N>::infinity());
    }
  });
}

// The blocks of all sequences before each one, where lengths differ.
inline std::vector<int64_t> block_starts(const AttentionParams& p, const Lengths& queries) {
  std::vector<int64_t> starts;
  if (!queries.varied()) return starts;
  starts.push_back(0);
  for (int64_t b = 0; b < p.B; b++)
    starts.push_back(starts.back() + ceil_div(queries.of(b), p.block_rows));
  return starts;
}

}  // namespace
}  // namespace suffuse
