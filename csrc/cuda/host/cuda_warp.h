// CUDA's shuffles and votes.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/host/cuda_language.h"

namespace suffuse::gpu::host {

template <class T>
struct Shuffle {
  T value;
  int source;
  emulator::Where where;
};

// Runs once for all lanes of a shuffle, in the last to come.
template <class T>
void shuffle_lanes(const emulator::Lanes& lanes) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(lanes.mask >> lane & 1)) continue;
    const auto& taker = *static_cast<const Shuffle<T>*>(lanes.in[lane]);
    if (!(lanes.mask >> taker.source & 1)) {
      emulator::fail("shuffle",
                     "lane " + std::to_string(lane) + " takes the value of lane " +
                         std::to_string(taker.source) + ", which the mask leaves out",
                     taker.where);
    }
    const auto& giver = *static_cast<const Shuffle<T>*>(lanes.in[taker.source]);
    *static_cast<T*>(lanes.out[lane]) = giver.value;
  }
  emulator::count_shuffle();
}

template <class T>
SUFFUSE_DEVICE T shuffle(unsigned mask, T value, int source, emulator::Where where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  const Shuffle<T> in = {value, source, where};
  T out;
  emulator::collective("shuffle", mask, &in, &out, shuffle_lanes<T>, where);
  return out;
}

inline void ballot_lanes(const emulator::Lanes& lanes) {
  uint32_t votes = 0;
  for (int lane = 0; lane < 32; lane++) {
    if (!(lanes.mask >> lane & 1)) continue;
    votes |= static_cast<uint32_t>(*static_cast<const bool*>(lanes.in[lane])) << lane;
  }
  for (int lane = 0; lane < 32; lane++) {
    if (lanes.mask >> lane & 1) *static_cast<uint32_t*>(lanes.out[lane]) = votes;
  }
  emulator::count_vote();
}

}  // namespace suffuse::gpu::host

// Lanes form groups of `width`; a source outside of the group is the lane itself.
template <class T>
SUFFUSE_DEVICE T __shfl_sync(unsigned mask, T value, int source, int width = 32, SUFFUSE_WHERE) {
  const int first = emulator::lane_index() & ~(width - 1);
  return suffuse::gpu::host::shuffle(mask, value, first | (source & (width - 1)), {file, line});
}
template <class T>
SUFFUSE_DEVICE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                SUFFUSE_WHERE) {
  const int lane = emulator::lane_index(), source = lane - static_cast<int>(delta);
  const int first = lane & ~(width - 1);
  return suffuse::gpu::host::shuffle(mask, value, source < first ? lane : source, {file, line});
}
template <class T>
SUFFUSE_DEVICE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                  SUFFUSE_WHERE) {
  const int lane = emulator::lane_index(), source = lane + static_cast<int>(delta);
  const int last = lane | (width - 1);
  return suffuse::gpu::host::shuffle(mask, value, source > last ? lane : source, {file, line});
}
template <class T>
SUFFUSE_DEVICE T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, SUFFUSE_WHERE) {
  const int lane = emulator::lane_index(), source = lane ^ flip;
  const int last = lane | (width - 1);
  return suffuse::gpu::host::shuffle(mask, value, source > last ? lane : source, {file, line});
}

SUFFUSE_DEVICE unsigned __ballot_sync(unsigned mask, int predicate, SUFFUSE_WHERE) {
  const bool in = predicate != 0;
  uint32_t out;
  emulator::collective("vote", mask, &in, &out, suffuse::gpu::host::ballot_lanes, {file, line});
  return out;
}
SUFFUSE_DEVICE int __any_sync(unsigned mask, int predicate, SUFFUSE_WHERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
SUFFUSE_DEVICE int __all_sync(unsigned mask, int predicate, SUFFUSE_WHERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
