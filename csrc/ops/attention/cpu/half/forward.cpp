// Attention in bfloat16 and float16, forward: products on the bfloat16 units, the softmax in fp32
// between them.
//
// Queries lie on the vector lanes as in the fp32 kernel: S^T[key][query] = K Q^T, O^T[d][query] +=
// V^T P^T. A job is a panel of 32 queries with a block of 128 keys, done in groups of 32 keys.
// While the softmax of a group runs on the vector units, the products run behind it: the scores of
// the next group, and a share of V^T P^T of the job before.
//
// bfloat16 has the range of fp32, so a weight may exceed 1 by far: the reference of the softmax is
// the largest score of a panel's first group, and moves only if a sum passes 2^64.
#include "ops/attention/cpu/half/jobs-inl.h"
#include "ops/attention/cpu/half/kernel.h"
#include "ops/attention/cpu/half/softmax-inl.h"
#include "ops/attention/cpu/unit-inl.h"
#include "simd/flush_subnormals.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

constexpr int64_t kPacked = 1 << 20;  // bytes of packed keys and values: half of an L2 cache

template <class Else>
SUFFUSE_INLINE void score(const Work& w, const TileProduct& tiles, const Job& job, int64_t group,
                          Else& other) {
  const uint32_t* const k = w.k + (group - w.packed) * 2 * w.k_depth * kTileWords;
  const TileAddresses t{
      k,          job.panel->q, w.k_depth, 1, 2, scores_of(w, job, group), 2 * kTileWords,
      kTileWords, kTileSide};
  tiles.multiply<2, 2, false>(t, w.k_depth, other);
}

// Rows [begin, end) in tiles of O^T += V^T P^T.
template <class Else>
SUFFUSE_INLINE void add_values(const Work& w, const TileProduct& tiles, const Job& job,
                               int64_t begin, int64_t end, Else& other) {
  const uint32_t* const v = w.v + (job.begin - w.packed) * w.parts * w.v_rows * kTileWords;
  const int64_t depth = (job.end - job.begin) * w.parts;
  for (int64_t d = begin; d < end; d += 2) {
    const TileAddresses t{v + d * kTileWords, job.weights, 1,
                          w.v_rows,           2,           job.panel->out + d * 2 * kTileWords,
                          2 * kTileWords,     kTileWords,  kTileSide};
    if (d + 1 < end) {
      tiles.multiply<2, 2, true>(t, depth, other);
    } else {
      tiles.multiply<1, 2, true>(t, depth, other);
    }
  }
}

// The scores of a group, ready for its softmax, with nothing running beside.
template <bool kModified>
SUFFUSE_INLINE void score_again(Work& w, const TileProduct& tiles, const Job& job, int64_t group) {
  NothingElse nothing;
  score(w, tiles, job, group, nothing);
  if constexpr (kModified) {
    pack_modifiers_of(w, job, group);
  } else {
    hide(scores_of(w, job, group), w.seen, group * kGroup, job.panel->first);
  }
}

// Rare: a sum became too large. The reference moves up; what was formed with the old one is scaled,
// the weights of this job are formed again. `before` are the sums without this job.
template <bool kModified>
__attribute__((noinline, cold)) void raise(Work& w, const TileProduct& tiles, const Job& job,
                                           const Job& next, const V (&before)[2]) {
  const Panel& p = *job.panel;
  NothingElse nothing;
  V largest[2] = {V(SoftmaxState<V>::kLowest), V(SoftmaxState<V>::kLowest)};
  for (int64_t g = job.begin; g < job.end; ++g) {
    score_again<kModified>(w, tiles, job, g);
    largest_scores<kModified>(w, job, g, largest);
  }
  for (int j = 0; j < 2; ++j) {
    SoftmaxState<V> state{load<V>(p.top + j * V::N), before[j]};
    // The sum so far may be the larger part.
    const V so_far = select(before[j] > V(1),
                            state.top + log(before[j]) * V(static_cast<float>(kLog2e)), state.top);
    const V keep = state.raise(max(so_far, largest[j]));
    store(p.top + j * V::N, state.top);
    store(p.sum + j * V::N, state.sum);
    for (int64_t d = 0; d < w.v_rows * kTileSide; ++d) {
      float* const x = p.out + (d / 16 * 2 + j) * kTileWords + d % 16 * V::N;
      store(x, load<V>(x) * keep);
    }
  }
  for (int64_t g = job.begin; g < job.end; ++g) {
    score_again<kModified>(w, tiles, job, g);
    Softmax<kModified>(w, job, g, 1).finish();
  }
  if (next.panel == nullptr) return;
  score(w, tiles, next, next.begin, nothing);
  if constexpr (kModified) pack_modifiers_of(w, next, next.begin);
}

SUFFUSE_INLINE void load_sums(const Panel& p, V (&sum)[2]) {
  for (int j = 0; j < 2; ++j) sum[j] = load<V>(p.sum + j * V::N);
}

// The softmax of a job; behind it the values of the job before and the scores of the next.
template <bool kModified>
__attribute__((noinline)) void attend(Work& w, const TileProduct& tiles, const Job& before,
                                      const Job& job, const Job& next) {
  V sums[2], now[2];
  load_sums(*job.panel, sums);
  const int64_t groups = job.end - job.begin, old = (before.end - before.begin) * w.parts;
  const int64_t rows = before.panel == nullptr ? 0 : w.v_rows;
  for (int64_t g = job.begin; g < job.end; ++g) {
    prepare<kModified>(w, job, g);
    if constexpr (kModified) {
      if (g + 1 < job.end) {
        pack_modifiers_of(w, job, g + 1);
      } else if (next.panel != nullptr) {
        pack_modifiers_of(w, next, next.begin);
      }
    }
    const int64_t i = g - job.begin;
    const int64_t begin = rows * i / groups / 2 * 2;
    const int64_t end = i + 1 == groups ? rows : rows * (i + 1) / groups / 2 * 2;
    Softmax<kModified> softmax(w, job, g, 4 * w.k_depth + 2 * (end - begin) * old);
    if (g + 1 < job.end) {
      score(w, tiles, job, g + 1, softmax);
      add_values(w, tiles, before, begin, end, softmax);
    } else {
      add_values(w, tiles, before, begin, end, softmax);
      if (next.panel != nullptr) score(w, tiles, next, next.begin, softmax);
    }
    softmax.finish();
  }
  load_sums(*job.panel, now);
  const V limit(kLargestSum);
  if (__builtin_expect(any((now[0] > limit) | (now[1] > limit)), 0))
    raise<kModified>(w, tiles, job, next, sums);
}

void pack_groups(Work& w, int64_t begin, int64_t end) {
  if (w.packed_b == w.seen.b && w.packed_head == w.group_head && w.packed <= begin &&
      end <= w.packed_end) {
    return;
  }
  const AttentionParams& p = *w.p;
  w.packed = begin;
  w.packed_end = end;
  w.packed_b = w.seen.b;
  w.packed_head = w.group_head;
  for (int64_t g = begin; g < end; ++g) {
    uint32_t* const k = w.k + (g - begin) * 2 * w.k_depth * kTileWords;
    uint32_t* const v = w.v + (g - begin) * w.parts * w.v_rows * kTileWords;
    const Rows32 keys = key_rows(p, p.k, w.seen, w.group_head, g * kGroup);
    for_parts(kPartsOfA, keys, [&](const Rows32& rows, int64_t part) {
      pack_rows(k + part * (w.k_depth / w.parts) * kTileWords, w.k_depth, rows, p.D);
    });
    if (w.key_norms != nullptr) w.key_norms[g - begin] = largest_norm(keys, p.D);
    for_parts(kPartsOfA, key_rows(p, p.v, w.seen, w.group_head, g * kGroup),
              [&](const Rows32& rows, int64_t part) {
                pack_columns(v + part * w.v_rows * kTileWords, rows, p.Dv);
              });
  }
}

void begin_panel(const Work& w, Panel& n) {
  const AttentionParams& p = *w.p;
  const uint32_t flip = w.scale.sign < 0 ? 0x80008000u : 0;
  const Rows32 queries = query_rows(p, p.q, w.seen, w.head, n.first);
  for_parts(kPartsOfB, queries, [&](const Rows32& rows, int64_t part) {
    pack_transposed_rows(n.q + part * 2 * (w.k_depth / w.parts) * kTileWords, rows, p.D,
                         Words(static_cast<int32_t>(flip)));
  });
  if (w.key_norms != nullptr) n.norm = largest_norm(queries, p.D);
  // A sink is a score that was there before the first key's.
  const float* const sinks = static_cast<const float*>(p.scores.sinks);
  SoftmaxState<V> state;
  n.unset = sinks == nullptr || sinks[w.head] == -SoftmaxState<V>::kInf;
  if (!n.unset) {
    state.top = V(sinks[w.head] * static_cast<float>(kLog2e));
    state.sum = V(1);
  }
  for (int j = 0; j < 2; ++j) {
    store(n.top + j * V::N, state.top);
    store(n.sum + j * V::N, state.sum);
  }
  __builtin_memset(n.out, 0, static_cast<size_t>(w.v_rows * 2 * kTileWords) * sizeof(float));
}

void end_panel(const Work& w, const Panel& n) {
  const AttentionParams& p = *w.p;
  float* const lse = static_cast<float*>(p.lse);
  for (int j = 0; j < 2; ++j) {
    const int64_t query = n.first + j * V::N, rows = smaller<int64_t>(V::N, w.seen.T - query);
    if (rows <= 0) break;
    const SoftmaxState<V> state{load<V>(n.top + j * V::N), load<V>(n.sum + j * V::N)};
    store(lse + attention_lse(p, w.seen, w.head, query), state.lse(), static_cast<int>(rows));
    bfloat16* const out = static_cast<bfloat16*>(p.out.data) +
                          attention_query(p.out, w.seen, query) + w.head * p.out.head;
    store_transposed(out, p.dtype, p.out.row, n.out + j * kTileWords, 2 * kTileWords, rows, p.Dv,
                     state.inverse());
  }
}

// All panels with the groups [begin, end) of keys.
template <bool kModified>
void run_keys(Work& w, const TileProduct& tiles, int64_t begin, int64_t end) {
  pack_groups(w, begin, end);
  NothingElse nothing;
  Jobs jobs(w, begin, end);
  int64_t parity = 0;
  Job before, job = jobs.next();
  job.weights = w.weights[0];
  if (job.panel != nullptr) {
    score(w, tiles, job, job.begin, nothing);
    if constexpr (kModified) pack_modifiers_of(w, job, job.begin);
  }
  while (job.panel != nullptr) {
    Job next = jobs.next();
    parity ^= 1;
    next.weights = w.weights[parity];
    next.scores = (job.scores + job.end - job.begin) % 2;
    attend<kModified>(w, tiles, before, job, next);
    before = job;
    job = next;
  }
  if (before.panel != nullptr) add_values(w, tiles, before, 0, w.v_rows, nothing);
}

template <bool kModified>
void run_block(Work& w, const TileProduct& tiles, const Unit& unit) {
  const AttentionParams& p = *w.p;
  w.seen = attention_sequence(p, unit.b);
  w.head = unit.h;
  w.group_head = unit.h / (p.H / p.G);
  const int64_t begin = unit.block * p.block_rows, end = smaller(w.seen.T, begin + p.block_rows);
  if (begin >= end) return;
  w.count = tiles_of(end - begin, kPanel);
  if constexpr (kModified) {
    for (GroupModifiers& m : w.modifiers) begin_head(m, p, unit.b, unit.h, w.scale);
  }
  for (int64_t i = 0; i < w.count; ++i) {
    w.panels[i].first = begin + i * kPanel;
    begin_panel(w, w.panels[i]);
  }
  const int64_t groups = tiles_of(w.seen.end_key(end - 1), kGroup);
  for (int64_t g = w.seen.first_key(begin) / (kGroup * kGroups) * kGroups; g < groups; g += w.most)
    run_keys<kModified>(w, tiles, g, smaller(groups, g + w.most));
  for (int64_t i = 0; i < w.count; ++i) end_panel(w, w.panels[i]);
}

void lay_out(Scratch& s, Work& w, const AttentionParams& p) {
  const int64_t most = tiles_of(smaller(p.block_rows, p.T), kPanel);
  w.panels = s.take<Panel>(most);
  w.most = larger<int64_t>(
               1, kPacked / ((2 * w.k_depth + w.parts * w.v_rows) * kTileWords * 4) / kGroups) *
           kGroups;
  w.most = smaller(w.most, tiles_of(p.S, kGroup));
  for (int i = 0; i < 2; ++i) {
    w.scores[i] = s.take<float>(kGroupFloats);
    w.weights[i] = s.take<uint32_t>(kGroups * w.parts * kGroupWords);
  }
  if (is_modified(p)) {
    for (GroupModifiers& m : w.modifiers) lay_out(s, m, p);
  }
  if (p.scores.softcap > 0) w.key_norms = s.take<float>(w.most);
  w.k = s.take<uint32_t>(w.most * 2 * w.k_depth * kTileWords);
  w.v = s.take<uint32_t>(w.most * w.parts * w.v_rows * kTileWords);
  for (int64_t i = 0; i < most; ++i) {
    uint32_t* const q = s.take<uint32_t>(2 * w.k_depth * kTileWords);
    float* const out = s.take<float>(2 * w.v_rows * kTileWords);
    float *const top = s.take<float>(kPanel), *const sum = s.take<float>(kPanel);
    if (w.panels != nullptr) w.panels[i] = {q, out, top, sum, 0, true, 0};
  }
}

}  // namespace
}  // namespace attention

void attention_half_fwd_range(const AttentionParams& p, int64_t begin, int64_t end) {
  using namespace attention;
  const FlushSubnormals flush;
  const TileProduct tiles;
  Scratch scratch;
  Work w{};
  w.p = &p;
  w.parts = parts_of(p.dtype);
  w.k_depth = w.parts * tiles_of(p.D, kTileDepth);
  w.v_rows = tiles_of(p.Dv, kTileSide);
  w.scale = Scale<float>(p.scores.scale);
  lay_out(scratch, w, p);
  scratch.allocate();
  lay_out(scratch, w, p);
  w.packed_b = -1;
  const bool modified = is_modified(p);
  for (int64_t unit = begin; unit < end; ++unit) {
    if (modified) {
      run_block<true>(w, tiles, unit_at(p, unit));
    } else {
      run_block<false>(w, tiles, unit_at(p, unit));
    }
  }
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
