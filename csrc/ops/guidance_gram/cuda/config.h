// Launch shapes of the CUDA kernels of guidance_gram: plain functions of the params.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/groups.h"
#include "cuda/launch_shape.h"
#include "ops/guidance_gram/params.h"

namespace suffuse {

struct GuidanceGramShape {
  static constexpr int kThreads = 256;
  static constexpr int64_t kLeastRounds = 2;    // groups of one thread in a piece
  static constexpr int64_t kMostPieces = 1024;  // of a sample
  // The second kernel: slices of a sample's rows, each added up by the threads of one entry.
  static constexpr int kSlices = 16, kSlots = 16, kFinishThreads = kSlices * kSlots;
  static_assert(kSlots >= gram_row(GuidanceGramParams::kMaxTensors));
};

inline int64_t guidance_gram_groups(const GuidanceGramParams& p) {
  if (p.elements == 0) return 0;
  return groups_of_sample(p.batch, p.elements, group_size(sizeof_dtype(p.type)));
}

// Groups that each thread of a block takes: a block has one piece of a sample.
inline int64_t guidance_gram_rounds(const GuidanceGramParams& p) {
  using Shape = GuidanceGramShape;
  const int64_t most = Shape::kThreads * Shape::kMostPieces;
  const int64_t rounds = (guidance_gram_groups(p) + most - 1) / most;
  return rounds < Shape::kLeastRounds ? Shape::kLeastRounds : rounds;
}

// Rows of partials a sample.
inline int64_t guidance_gram_pieces_cuda(const GuidanceGramParams& p) {
  const int64_t piece = GuidanceGramShape::kThreads * guidance_gram_rounds(p);
  return (guidance_gram_groups(p) + piece - 1) / piece;
}

// Calls fn(TypeTag<S>, count) with the storage type and the number of tensors as a constant.
template <class Fn>
void visit_guidance_gram(const GuidanceGramParams& p, Fn&& fn) {
  visit_dtype(p.type, [&](auto type) {
    switch (p.count) {
      case 1:
        return fn(type, std::integral_constant<int, 1>{});
      case 2:
        return fn(type, std::integral_constant<int, 2>{});
      case 3:
        return fn(type, std::integral_constant<int, 3>{});
      case 4:
        return fn(type, std::integral_constant<int, 4>{});
    }
  });
}

}  // namespace suffuse
