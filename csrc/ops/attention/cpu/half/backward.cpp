// Attention in bfloat16 and float16, backward: the five products on the bfloat16 units, all sums in
// fp32.
//
// Query blocks outside, key blocks inside, as in the fp32 kernel. A job is 4 panels of 32 queries
// with a block of 128 keys: for each panel and group of 32 keys S^T = K Q^T and dP^T = V dO^T, and
// from them P^T and dS^T = P^T (dP^T - delta), rounded to bfloat16. Then, with the job as depth, dV
// += P^T dO, dK += dS^T Q and dQ^T += K^T dS^T. The order is fixed by the shapes.
#include "ops/attention/cpu/half/gradient-inl.h"
#include "ops/attention/cpu/half/kernel.h"
#include "simd/flush_subnormals.h"
#include "simd/math.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

// The job of the panels [first, last) and the packed groups [base, end).
template <bool kModified>
__attribute__((noinline)) void run_job(Work& w, const TileProduct& tiles, int64_t first,
                                       int64_t last, int64_t base, int64_t end) {
  int64_t seen_first[kGroups], seen_last[kGroups];  // panels that see the group
  for (int g = 0; g < kGroups; ++g) seen_first[g] = last, seen_last[g] = first;
  for (int64_t i = first; i < last; ++i) {
    const Panel& n = w.panels[i];
    const Groups seen = seen_groups(w.seen, n.first);
    const int64_t begin = larger(base, seen.begin), stop = smaller(end, seen.end);
    if (begin >= stop) continue;
    for (int64_t group = begin; group < stop; ++group) {
      differentiate<kModified>(w, tiles, n, i - first, group, base);
      seen_first[group - base] = smaller(seen_first[group - base], i);
      seen_last[group - base] = i + 1;
    }
    if (kModified && w.bias_gradient.alone) continue;
    add_to_queries(w, tiles, n, i - first, begin - base, stop - begin);
  }
  if (kModified && w.bias_gradient.alone) return;
  for (int64_t g = 0; g < end - base; ++g) {
    const int64_t panel = seen_first[g], panels = seen_last[g] - panel;
    if (panels <= 0) continue;
    const int64_t key = (base + g) * kGroup, b = panel * w.parts * kTileWords;
    const int64_t a = (2 * g * kPanels + panel - first) * w.parts * kTileWords;
    add_to_keys(w, tiles, w.dv + key * w.v_tiles * kTileSide, w.v_tiles, w.p + a,
                w.g + b * w.v_tiles, panels);
    add_to_keys(w, tiles, w.dk + key * w.tiles * kTileSide, w.tiles, w.ds + a, w.q + b * w.tiles,
                panels);
  }
}

void pack_groups(const Work& w, int64_t begin, int64_t end) {
  const AttentionParams& f = w.a->forward;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t g = group - begin;
    const Rows32 keys = key_rows(f, f.k, w.seen, w.group_head, group * kGroup);
    const Rows32 values = key_rows(f, f.v, w.seen, w.group_head, group * kGroup);
    for_parts(kPartsOfA, keys, [&](const Rows32& rows, int64_t part) {
      pack_rows(w.k + (g * 2 * w.depth + part * w.depth / w.parts) * kTileWords, w.depth, rows,
                f.D);
      pack_columns(w.kt + (g * w.parts + part) * w.tiles * kTileWords, rows, f.D);
    });
    for_parts(kPartsOfA, values, [&](const Rows32& rows, int64_t part) {
      pack_rows(w.v + (g * 2 * w.v_depth + part * w.v_depth / w.parts) * kTileWords, w.v_depth,
                rows, f.Dv);
    });
    if (w.key_norms != nullptr) w.key_norms[g] = largest_norm(keys, f.D);
  }
}

template <class S>
SUFFUSE_INLINE float dot(const void* a, const void* b, int64_t count) {
  V sum = zero<V>();
  for (int64_t i = 0; i < count; i += V::N) {
    const int width = static_cast<int>(smaller<int64_t>(V::N, count - i));
    sum = muladd(load<V>(static_cast<const S*>(a) + i, width),
                 load<V>(static_cast<const S*>(b) + i, width), sum);
  }
  return reduce_add(sum);
}

// delta and lse of the panel's queries. A row without keys has no gradient: its lse makes P vanish.
void begin_rows(const Work& w, const Panel& n) {
  const AttentionGradParams& a = *w.a;
  const AttentionParams& f = a.forward;
  const Rows32 out = query_rows(f, f.out, w.seen, w.head, n.first);
  const Rows32 grad = query_rows(f, a.grad_out, w.seen, w.head, n.first);
  const int64_t at = attention_lse(f, w.seen, w.head, n.first);
  const float* const lse = static_cast<const float*>(f.lse) + at;
  const float* const grad_lse = static_cast<const float*>(a.grad_lse);
  const float inf = SoftmaxState<V>::kInf;
  for (int64_t r = 0; r < kPanel; ++r) {
    const bool empty = out.row[r] == nullptr || lse[r] == -inf;
    n.lse[r] = empty ? inf : lse[r] * static_cast<float>(kLog2e);
    n.delta[r] = 0;
    if (empty) continue;
    n.delta[r] = (f.dtype == DType::bf16 ? dot<bfloat16>(out.row[r], grad.row[r], f.Dv)
                                         : dot<float16>(out.row[r], grad.row[r], f.Dv)) -
                 (grad_lse == nullptr ? 0.f : grad_lse[at + r]);
  }
}

void begin_panel(const Work& w, int64_t i) {
  const AttentionGradParams& a = *w.a;
  const AttentionParams& f = a.forward;
  const Panel& n = w.panels[i];
  const Rows32 q = query_rows(f, f.q, w.seen, w.head, n.first);
  const Rows32 g = query_rows(f, a.grad_out, w.seen, w.head, n.first);
  const uint32_t flip = w.scale.sign < 0 ? 0x80008000u : 0;
  for_parts(kPartsOfB, q, [&](const Rows32& rows, int64_t part) {
    pack_transposed_rows(n.qt + part * 2 * (w.depth / w.parts) * kTileWords, rows, f.D,
                         Words(static_cast<int32_t>(flip)));
    pack_depth(w.q + (i * w.parts + part) * w.tiles * kTileWords, rows, f.D);
  });
  for_parts(kPartsOfB, g, [&](const Rows32& rows, int64_t part) {
    pack_transposed_rows(n.gt + part * 2 * (w.v_depth / w.parts) * kTileWords, rows, f.Dv,
                         Words(0));
    pack_depth(w.g + (i * w.parts + part) * w.v_tiles * kTileWords, rows, f.Dv);
  });
  if (w.key_norms != nullptr) w.panels[i].norm = largest_norm(q, f.D);
  __builtin_memset(n.dq, 0, static_cast<size_t>(w.tiles * 2 * kTileWords) * sizeof(float));
  begin_rows(w, n);
}

void end_panel(const Work& w, const Panel& n) {
  const AttentionGradParams& a = *w.a;
  const AttentionParams& f = a.forward;
  for (int j = 0; j < 2; ++j) {
    const int64_t query = n.first + j * V::N, rows = smaller<int64_t>(V::N, w.seen.T - query);
    if (rows <= 0) break;
    bfloat16* const dq = static_cast<bfloat16*>(a.grad_q.data) +
                         attention_query(a.grad_q, w.seen, query) + w.head * a.grad_q.head;
    store_transposed(dq, f.dtype, a.grad_q.row, n.dq + j * kTileWords, 2 * kTileWords, rows, f.D,
                     V(static_cast<float>(f.scores.scale)));
  }
}

void begin_head(Work& w) {
  const AttentionGradParams& a = *w.a;
  begin_head(w.modifiers, a.forward, w.seen.b, w.head, w.scale);
  if (a.grad_bias == nullptr || a.bias_apart != w.bias_gradient.alone) return;
  w.bias_gradient.to =
      static_cast<float*>(a.grad_bias) + w.seen.b * a.grad_bias_batch + w.head * a.grad_bias_head;
}

template <bool kModified>
void run_block(Work& w, const TileProduct& tiles, int64_t h, int64_t block) {
  const AttentionParams& f = w.a->forward;
  const int64_t begin = block * f.block_rows, end = smaller(w.seen.T, begin + f.block_rows);
  w.head = h;
  if (begin >= end) return;
  if constexpr (kModified) begin_head(w);
  w.count = tiles_of(end - begin, kPanel);
  for (int64_t i = 0; i < w.count; ++i) {
    w.panels[i].first = begin + i * kPanel;
    begin_panel(w, i);
  }
  const int64_t first = w.seen.first_key(begin) / (kGroup * kGroups) * kGroups;
  const int64_t groups = tiles_of(w.seen.end_key(end - 1), kGroup);
  for (int64_t g = first; g < groups; g += kGroups) {
    const int64_t stop = smaller(groups, g + kGroups);
    pack_groups(w, g, stop);
    for (int64_t i = 0; i < w.count; i += kPanels)
      run_job<kModified>(w, tiles, i, smaller(w.count, i + kPanels), g, stop);
  }
  if (kModified && w.bias_gradient.alone) return;
  for (int64_t i = 0; i < w.count; ++i) end_panel(w, w.panels[i]);
}

// What a unit has added up: stored, or handed on in the workspace of its chunk.
void end_unit(const Work& w, int64_t unit) {
  const AttentionGradParams& a = *w.a;
  const AttentionParams& f = a.forward;
  const int64_t d = w.tiles * kTileSide, dv = w.v_tiles * kTileSide;
  if (a.chunks == 1) {
    const auto store = [&](auto tag) {
      using S = decltype(tag);
      store_keys<float, S>(f, a.grad_k, w.seen, w.group_head, w.dk, d, f.D,
                           static_cast<float>(f.scores.scale));
      store_keys<float, S>(f, a.grad_v, w.seen, w.group_head, w.dv, dv, f.Dv, 1.f);
    };
    return f.dtype == DType::bf16 ? store(bfloat16{}) : store(float16{});
  }
  float* const to = static_cast<float*>(a.workspace) + unit * f.S * (d + dv);
  __builtin_memcpy(to, w.dk, static_cast<size_t>(f.S * d) * sizeof(float));
  __builtin_memcpy(to + f.S * d, w.dv, static_cast<size_t>(f.S * dv) * sizeof(float));
}

void lay_out(Scratch& s, Work& w, const AttentionGradParams& a) {
  const AttentionParams& f = a.forward;
  const int64_t most = tiles_of(smaller(f.block_rows, f.T), kPanel);
  const int64_t rows = tiles_of(f.S, kGroup) * kGroup;
  w.panels = s.take<Panel>(most);
  w.q = s.take<uint32_t>(most * w.parts * w.tiles * kTileWords);
  w.g = s.take<uint32_t>(most * w.parts * w.v_tiles * kTileWords);
  w.k = s.take<uint32_t>(kGroups * 2 * w.depth * kTileWords);
  w.v = s.take<uint32_t>(kGroups * 2 * w.v_depth * kTileWords);
  w.kt = s.take<uint32_t>(kGroups * w.parts * w.tiles * kTileWords);
  w.scores = s.take<float>(kGroupFloats);
  w.dp = s.take<float>(kGroupFloats);
  const int64_t weights = kGroups * kPanels * w.parts * kGroupWords;
  w.p = s.take<uint32_t>(weights);
  w.ds = s.take<uint32_t>(weights);
  w.ds_pairs = s.take<uint32_t>(weights);
  if (is_modified(f)) lay_out(s, w.modifiers, f);
  if (f.scores.softcap > 0) w.key_norms = s.take<float>(kGroups);
  if (a.grad_bias != nullptr) w.bias_ds = s.take<float>(kGroupFloats);
  w.dk = s.take<float>(rows * w.tiles * kTileSide);
  w.dv = s.take<float>(rows * w.v_tiles * kTileSide);
  for (int64_t i = 0; i < most; ++i) {
    uint32_t *const qt = s.take<uint32_t>(2 * w.depth * kTileWords), *const gt = s.take<uint32_t>(
                                                                         2 * w.v_depth *
                                                                         kTileWords);
    float *const dq = s.take<float>(2 * w.tiles * kTileWords), *const lse = s.take<float>(kPanel),
                 *const delta = s.take<float>(kPanel);
    if (w.panels != nullptr) w.panels[i] = {qt, gt, dq, lse, delta, 0, 0};
  }
}

void begin_work(Scratch& scratch, Work& w, const AttentionGradParams& a) {
  const AttentionParams& f = a.forward;
  w.a = &a;
  w.parts = parts_of(f.dtype);
  w.depth = w.parts * tiles_of(f.D, kTileDepth);
  w.v_depth = w.parts * tiles_of(f.Dv, kTileDepth);
  w.tiles = tiles_of(f.D, kTileSide);
  w.v_tiles = tiles_of(f.Dv, kTileSide);
  w.scale = Scale<float>(f.scores.scale);
  w.bias_gradient.row = a.grad_bias_row;
  w.bias_gradient.key = a.grad_bias_key;
  lay_out(scratch, w, a);
  scratch.allocate();
  lay_out(scratch, w, a);
}

template <bool kModified>
void run_unit(Work& w, const TileProduct& tiles, int64_t unit) {
  const AttentionGradParams& a = *w.a;
  const AttentionParams& f = a.forward;
  const int64_t rows = tiles_of(f.S, kGroup) * kGroup, heads = f.H / f.G, bg = unit / a.chunks;
  w.seen = attention_sequence(f, bg / f.G);
  w.group_head = bg % f.G;
  __builtin_memset(w.dk, 0, static_cast<size_t>(rows * w.tiles * kTileSide) * sizeof(float));
  __builtin_memset(w.dv, 0, static_cast<size_t>(rows * w.v_tiles * kTileSide) * sizeof(float));
  const int64_t blocks = tiles_of(w.seen.T, f.block_rows);
  for (int64_t i = unit % a.chunks; i < heads * blocks; i += a.chunks)
    run_block<kModified>(w, tiles, w.group_head * heads + i / blocks, i % blocks);
  end_unit(w, unit);
}

}  // namespace
}  // namespace attention

void attention_half_bwd_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using namespace attention;
  const FlushSubnormals flush;
  const TileProduct tiles;
  Scratch scratch;
  Work w{};
  begin_work(scratch, w, a);
  const bool modified = is_modified(a.forward);
  for (int64_t unit = begin; unit < end; ++unit) {
    if (modified) {
      run_unit<true>(w, tiles, unit);
    } else {
      run_unit<false>(w, tiles, unit);
    }
  }
}

void attention_half_bwd_bias_range(const AttentionGradParams& a, int64_t begin, int64_t end) {
  using namespace attention;
  const FlushSubnormals flush;
  const TileProduct tiles;
  Scratch scratch;
  Work w{};
  w.bias_gradient.alone = true;
  begin_work(scratch, w, a);
  for_bias_blocks(a, begin, end, [&](const AttentionSequence& s, int64_t h, int64_t block) {
    w.seen = s;
    w.group_head = h / (a.forward.H / a.forward.G);
    run_block<true>(w, tiles, h, block);
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
