// What the backward does for one panel of queries with one group of keys.
#pragma once

#include "ops/attention/cpu/bias_gradient-inl.h"
#include "ops/attention/cpu/half/modify-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

constexpr int kPanels = 4, kGroups = 4;  // of a job

struct Panel {
  uint32_t *qt, *gt;   // tiles [parts][D / 32][2], [parts][Dv / 32][2] of B: Q^T, dO^T
  float* dq;           // tiles [D / 16][2] of sums: dQ^T
  float *lse, *delta;  // lse in base 2, +inf for a row without keys; rowsum(dO O) - grad_lse
  int64_t first;
  float norm;  // the largest of a query
};

struct Work {
  const AttentionGradParams* a;
  AttentionSequence seen;
  int64_t head, group_head;
  Panel* panels;
  int64_t count;
  // By panels: tiles [parts][D / 16], [parts][Dv / 16] of B: Q, dO with the queries as depth
  uint32_t *q, *g;
  // By groups: tiles [2][parts][D / 32], [2][parts][Dv / 32], [parts][D / 16] of A: K, V, K^T
  uint32_t *k, *v, *kt;
  float *scores, *dp;  // tiles [2][2] of sums of one panel and group
  uint32_t *p, *ds;    // tiles [2 kGroups][kPanels][parts] of A: P^T, dS^T
  uint32_t* ds_pairs;  // by panels: tiles [kGroups][parts][2] of B: dS^T
  float *dk, *dv;      // [S][padded D], [S][padded Dv], the rows up to whole groups
  int64_t parts;
  int64_t depth, v_depth, tiles, v_tiles;  // of D and Dv in 32s, every part counted, and in 16s
  Scale<float> scale;
  float* key_norms;          // by groups: the largest of a key; null without softcap
  GroupModifiers modifiers;  // of the panel and group at hand
  BiasGradient<float> bias_gradient;
  float* bias_ds;  // [key][query] of them, where the bias has a gradient
};

// P and dS of two keys of a group from `key` on: dS = P (dP - delta).
SUFFUSE_INLINE void gradients(const Work& w, const V (&minus_lse)[2], const V (&delta)[2],
                              int64_t key, V (&p)[2][2], V (&ds)[2][2]) {
  const V factor(w.scale.factor);
  const int64_t from = place_of(key);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const int64_t at = from + j * kTileWords + i * V::N;
      p[i][j] = exp2_near(muladd(load<V>(w.scores + at), factor, minus_lse[j]));
      ds[i][j] = p[i][j] * (load<V>(w.dp + at) - delta[j]);
    }
}

// The same with modified scores; p is what of P reaches the values.
SUFFUSE_INLINE void modified_gradients(const Work& w, const V (&minus_lse)[2], const V (&delta)[2],
                                       int64_t key, V (&p)[2][2], V (&ds)[2][2]) {
  const GroupModifiers& m = w.modifiers;
  const int64_t from = place_of(key);
  V x[2][2], derivative[2][2] = {{V(1), V(1)}, {V(1), V(1)}};
  load_scores(x, w.scores + from);
  load_scores(ds, w.dp + from);
  m.modify(x, minus_lse, key, [&](int i, int j, V t) { derivative[i][j] = fnma(t, t, V(1)); });
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      p[i][j] = exp2_near(x[i][j]);
      const V weight = p[i][j];
      if (m.keep != nullptr) {
        const V kept = load<V>(m.keep + from + j * kTileWords + i * V::N);
        p[i][j] *= kept;
        ds[i][j] *= kept;
      }
      ds[i][j] = weight * (ds[i][j] - delta[j]);
      if (w.bias_gradient.to != nullptr) {
        store(w.bias_ds + (key + i) * kPanel + j * V::N, ds[i][j]);
      }
      if (m.m.cap > 0) ds[i][j] *= derivative[i][j];
    }
}

// P^T and dS^T of one panel and group, of which the job's `panel` and `group` are.
template <bool kModified>
SUFFUSE_INLINE void weights(const Work& w, const Panel& n, int64_t panel, int64_t group) {
  V minus_lse[2], delta[2];
  for (int j = 0; j < 2; ++j) {
    minus_lse[j] = -load<V>(n.lse + j * V::N);
    delta[j] = load<V>(n.delta + j * V::N);
  }
  const bool split = w.parts > 1;
  uint32_t* const pairs = w.ds_pairs + (panel * kGroups + group) * w.parts * kGroupWords;
  for (int64_t key = 0; key < kGroup; key += 2) {
    const int64_t tile = ((2 * group + key / 16) * kPanels + panel) * w.parts;
    const int64_t row = tile * kTileWords + key % 16 * V::N;
    V p[2][2], ds[2][2];
    if constexpr (kModified) {
      w.modifiers.fetch_ahead(key, key + 2);
      modified_gradients(w, minus_lse, delta, key, p, ds);
    } else {
      gradients(w, minus_lse, delta, key, p, ds);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int64_t at = row + i * V::N;
      store_parts(w.p + at, kTileWords, kPartsOfA, split, p[i][0], p[i][1]);
      store_parts(w.ds + at, kTileWords, kPartsOfA, split, ds[i][0], ds[i][1]);
      store_parts(pairs + i * kTileWords + key / 2 * V::N, kGroupWords, kPartsOfB, split, ds[0][i],
                  ds[1][i]);
    }
  }
}

// Adds the panel's and group's share to the gradient of the bias.
SUFFUSE_INLINE void add_to_bias(const Work& w, const Panel& n, int64_t key) {
  const Visible all{0, smaller<int64_t>(kGroup, w.seen.S - key), -kGroup, 0};
  w.bias_gradient.add<2>(w.bias_ds, n.first, smaller<int64_t>(kPanel, w.seen.T - n.first), all,
                         key);
}

// S^T and dP^T, then what follows from them. `group` counts from the first of the sequence, `base`
// is the first of the packed block.
template <bool kModified>
SUFFUSE_INLINE void differentiate(Work& w, const TileProduct& tiles, const Panel& n, int64_t panel,
                                  int64_t group, int64_t base) {
  NothingElse nothing;
  const int64_t g = group - base, key = group * kGroup;
  tiles.multiply<2, 2, false>({w.k + g * 2 * w.depth * kTileWords, n.qt, w.depth, 1, 2, w.scores,
                               2 * kTileWords, kTileWords, kTileSide},
                              w.depth, nothing);
  tiles.multiply<2, 2, false>({w.v + g * 2 * w.v_depth * kTileWords, n.gt, w.v_depth, 1, 2, w.dp,
                               2 * kTileWords, kTileWords, kTileSide},
                              w.v_depth, nothing);
  if constexpr (kModified) {
    const float largest = w.key_norms == nullptr ? 0.f : n.norm * w.key_norms[g];
    pack_group(w.modifiers, w.a->forward, w.seen, w.head, n.first, key, largest,
               {kPanel * w.a->forward.scores.bias_row, w.a->forward.scores.bias_row});
  } else {
    if (is_cut(w.seen, key, n.first)) hide(w.scores, w.seen, key, n.first);
  }
  weights<kModified>(w, n, panel, g);
  if constexpr (kModified) {
    if (w.bias_gradient.to != nullptr) add_to_bias(w, n, key);
  }
}

// to[key][c] += A^T B for one group of keys: A of w.p or w.ds, B of w.g or w.q, the parts of some
// of the job's panels as depth.
SUFFUSE_INLINE void add_to_keys(const Work& w, const TileProduct& tiles, float* to, int64_t columns,
                                const uint32_t* a, const uint32_t* b, int64_t panels) {
  const int64_t depth = panels * w.parts;
  NothingElse nothing;
  const int64_t ld = columns * kTileSide;
  for (int64_t c = 0; c < columns; c += 2) {
    const TileAddresses t{a,       b + c * kTileWords, kPanels * w.parts, 1,
                          columns, to + c * kTileSide, kTileSide * ld,    kTileSide,
                          ld};
    if (c + 1 < columns) {
      tiles.multiply<2, 2, true>(t, depth, nothing);
    } else {
      tiles.multiply<2, 1, true>(t, depth, nothing);
    }
  }
}

// dQ^T += K^T dS^T for the job's groups from `begin` on.
SUFFUSE_INLINE void add_to_queries(const Work& w, const TileProduct& tiles, const Panel& n,
                                   int64_t panel, int64_t begin, int64_t groups) {
  NothingElse nothing;
  const int64_t depth = groups * w.parts;
  const uint32_t* const pairs = w.ds_pairs + (panel * kGroups + begin) * w.parts * kGroupWords;
  for (int64_t c = 0; c < w.tiles; c += 2) {
    const TileAddresses t{w.kt + (begin * w.parts * w.tiles + c) * kTileWords,
                          pairs,
                          1,
                          w.tiles,
                          2,
                          n.dq + c * 2 * kTileWords,
                          2 * kTileWords,
                          kTileWords,
                          kTileSide};
    if (c + 1 < w.tiles) {
      tiles.multiply<2, 2, true>(t, depth, nothing);
    } else {
      tiles.multiply<1, 2, true>(t, depth, nothing);
    }
  }
}

}  // namespace
}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
