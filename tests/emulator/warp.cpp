// Barriers, and operations that the lanes of a warp do together.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "emulator/state.h"

namespace emulator {
namespace {

bool same_place(Where a, Where b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// A count of 0 stands for __syncthreads, which all threads must reach in one place.
NamedBarrier& arrive(int id, int threads, Where where) {
  NamedBarrier& barrier = engine.barriers[id];
  const int needed = threads ? threads : engine.threads;
  if (threads % 32 || id < 0 || id > 15) {
    fail("barrier",
         "barrier " + std::to_string(id) + " for " + std::to_string(threads) +
             " threads: expected an id of 0 to 15 and whole warps",
         where);
  }
  if (barrier.arrived == 0) {
    barrier.where = where;
    barrier.needed = needed;
  } else if (barrier.needed != needed || (threads == 0 && !same_place(barrier.where, where))) {
    const uint32_t sites[] = {site_of(where), site_of(barrier.where)};
    complain(
        "barrier divergence", uint64_t(sites[0]) << 32 | sites[1],
        "threads of one barrier stand at " + describe(where) + " and " + describe(barrier.where),
        {sites[0], sites[1]});
  }
  ++barrier.arrived;
  barrier.moments.push_back(moment_of(*engine.current));
  return barrier;
}

int lanes_of(int warp) { return std::min(32, engine.threads - 32 * warp); }

bool complete(int id, NamedBarrier& barrier) {
  if (barrier.arrived < barrier.needed) return false;
  ++engine.report.counters.barriers;
  if (engine.options.races) {
    const Known known = merge(barrier.moments);
    for (Fiber* fiber : barrier.waiting) acquire(*fiber, known);
  }
  // Warps that came as a whole have all their lanes in one place.
  std::vector<int> lanes(engine.warps.size());
  for (Fiber* fiber : barrier.waiting) {
    wake(*fiber);
    if (++lanes[fiber->warp] == lanes_of(fiber->warp)) ++engine.warps[fiber->warp].meeting_count;
  }
  engine.barriers.erase(id);
  return true;
}

}  // namespace

void barrier_sync(int id, int threads, Where where) {
  NamedBarrier& barrier = arrive(id, threads, where);
  barrier.waiting.push_back(engine.current);
  if (!complete(id, barrier)) block_on("a barrier", where);
}

void barrier_arrive(int id, int threads, Where where) { complete(id, arrive(id, threads, where)); }

void collective(const char* kind, uint32_t mask, const void* in, void* out,
                void (*all)(const Lanes&), Where where) {
  Fiber& fiber = *engine.current;
  std::vector<Meeting>& meetings = engine.warps[fiber.warp].meetings;
  if (!(mask >> fiber.lane & 1)) {
    fail("mask", std::string("a lane is not in the mask of its own ") + kind, where);
  }
  size_t i = 0;
  while (i < meetings.size() && meetings[i].mask != mask) i++;
  if (i == meetings.size()) meetings.push_back({kind, where, mask, 0, {}});
  Meeting& meeting = meetings[i];
  if (std::strcmp(meeting.kind, kind) || !same_place(meeting.where, where)) {
    const uint32_t sites[] = {site_of(where), site_of(meeting.where)};
    complain("warp divergence", uint64_t(sites[0]) << 32 | sites[1],
             "lanes of one warp meet in " + std::string(kind) + " at " + describe(where) +
                 " and in " + meeting.kind + " at " + describe(meeting.where),
             {sites[0], sites[1]});
    end_launch();
  }
  meeting.lanes.mask = mask;
  meeting.lanes.in[fiber.lane] = in;
  meeting.lanes.out[fiber.lane] = out;
  meeting.arrived |= 1u << fiber.lane;
  if (meeting.arrived != mask) return block_on(kind, where);
  const Lanes lanes = meeting.lanes;
  meetings.erase(meetings.begin() + static_cast<ptrdiff_t>(i));
  if (__builtin_popcount(mask) == lanes_of(fiber.warp)) {
    ++engine.warps[fiber.warp].meeting_count;
  }
  // Its body may be instrumented code that touches other lanes' stacks.
  engine.muted = true;
  if (all) all(lanes);
  engine.muted = false;
  for (int lane = 0; lane < 32; lane++) {
    if (mask >> lane & 1) wake(engine.fibers[fiber.warp * 32 + lane]);
  }
}

void warp_sync(uint32_t mask, Where where) {
  collective(
      "__syncwarp", mask, nullptr, nullptr,
      [](const Lanes& lanes) {
        if (!engine.options.races) return;
        std::vector<Fiber*> fibers;
        for (int lane = 0; lane < 32; lane++) {
          if (lanes.mask >> lane & 1) {
            fibers.push_back(&engine.fibers[engine.current->warp * 32 + lane]);
          }
        }
        join(fibers);
      },
      where);
}

void count_shuffle() { ++engine.report.counters.shuffles; }
void count_vote() { ++engine.report.counters.votes; }

float approximate(float exact, int max_ulp) {
  if (!engine.options.seed || !std::isfinite(exact) || exact == 0) return exact;
  int32_t bits;
  std::memcpy(&bits, &exact, 4);
  bits += static_cast<int32_t>(random_below(2 * static_cast<uint64_t>(max_ulp) + 1)) - max_ulp;
  float moved;
  std::memcpy(&moved, &bits, 4);
  return std::isfinite(moved) ? moved : exact;
}

float approximate_relative(float exact, float max_relative) {
  if (!engine.options.seed || !std::isfinite(exact)) return exact;
  const double part = static_cast<double>(random_below(2001)) / 1000 - 1;
  return static_cast<float>(exact * (1 + part * max_relative));
}

}  // namespace emulator
