// Gradients of attention for q, k and v on the tensor cores of sm_80 and later (Dao 2023), without
// atomics: what is added to a row of dQ, dK or dV, one block adds, in the order of the other side's
// rows. See backward_config.h for why there are two kernels.
//
// Rows are keys (dK, dV) or queries (dQ). A warp computes q k^T and dO v^T for its rows and a chunk
// of columns; the results, made to weights P and gradients of scores dS, are the operands of the
// second products as they are: dV += P dO, dK or dQ += dS times q or k.
#pragma once

#include "cuda/pipeline.cuh"
#include "ops/attention/cuda/backward_delta.cuh"
#include "ops/attention/cuda/backward_scores.cuh"
#include "ops/attention/cuda/backward_warp.cuh"
#include "ops/attention/cuda/rows.cuh"

namespace suffuse {

// Work of one block: rows [first, first + kRows) of a head, of queries or of keys and values.
struct AttentionGradBlock {
  int64_t b;
  int head, first;
};

// First come the keys that most queries see with a causal mask, or the queries that see most keys.
template <class Config>
SUFFUSE_DEVICE AttentionGradBlock attention_grad_block(const AttentionParams& p) {
  const int64_t rows = Config::kKeysAreRows ? p.S : p.T;
  const uint32_t blocks = static_cast<uint32_t>(attention_row_blocks(rows, Config::kRows));
  const uint32_t heads = static_cast<uint32_t>(Config::kKeysAreRows ? p.G : p.H);
  const uint32_t pair = blockIdx.x / blocks, i = blockIdx.x % blocks;
  const uint32_t index = Config::kKeysAreRows ? i : blocks - 1 - i;
  return {pair / heads, static_cast<int>(pair % heads), static_cast<int>(index) * Config::kRows};
}

template <class Config>
class AttentionBackwardBlock {
  using S = typename Config::S;
  using Shared = AttentionBackwardShared<Config>;
  using Stage = typename Shared::Stage;
  static constexpr bool kKeysAreRows = Config::kKeysAreRows, kGeneral = Config::kGeneral;
  static constexpr int kTilesM = Config::kTilesM, kTilesN = Config::kTilesN;
  static constexpr int kColumns = Config::kColumns, kChunk = Config::kChunk;
  using Fragments = typename AttentionBackwardWarp<Config>::Fragments;

 public:
  SUFFUSE_DEVICE AttentionBackwardBlock(const AttentionGradParams& g, const AttentionSequence& s,
                                        const AttentionGradBlock& block, int bytes, Shared& shared)
      : g_(g), p_(g.forward), s_(s), block_(block), shared_(shared), warp_(shared), bytes_(bytes) {
    row_ = warp_.first_row();
    terms_ = score_terms<kGeneral, S>(p_, s_, head_of(0));
    find_tiles();
    find_columns();
  }

  SUFFUSE_DEVICE void run() {
    start();
    const auto load = [&](int stage, int i) { load_columns(shared_.stages[stage], i); };
    const auto compute = [&](int stage, int i) { add_columns(shared_.stages[stage], i); };
    pipelined_loop<Config::kStages>(tiles_ * heads_, load, compute);
    gpu::copy_async_wait<0>();
    finish();
  }

 private:
  // Columns are those of heads_ query heads, one head after another.
  SUFFUSE_DEVICE int head_of(int i) const {
    return kKeysAreRows ? block_.head * static_cast<int>(p_.H / p_.G) + i : block_.head;
  }
  SUFFUSE_DEVICE int group() const {
    return kKeysAreRows ? block_.head : block_.head / static_cast<int>(p_.H / p_.G);
  }
  SUFFUSE_DEVICE AttentionRows<S> queries(const AttentionTensor& t, int head, int64_t dim) const {
    return query_rows<S>(t, s_, head, dim);
  }
  SUFFUSE_DEVICE AttentionRows<S> keys(const AttentionTensor& t, int64_t dim) const {
    return key_rows<S>(t, s_, group(), dim);
  }

  // The tiles of columns that see a row of the block or are seen by it; all of them where the
  // gradient of the bias is written.
  SUFFUSE_DEVICE void find_tiles() {
    const ScoreTerms& t = terms_;
    const int rows = kKeysAreRows ? t.keys : t.queries, columns = kKeysAreRows ? t.queries : t.keys;
    const int64_t shift = kKeysAreRows ? -t.shift : t.shift;
    const int64_t last = ::min(block_.first + Config::kRows, rows) - 1;
    int64_t begin = block_.first + shift - (kKeysAreRows ? t.right : t.left);
    int64_t end = last + shift + (kKeysAreRows ? t.left : t.right) + 1;
    end = end < columns ? end : columns;
    if (writes_bias()) {
      begin = 0;
      end = p_.S;
    }
    begin_ = static_cast<int>(begin > 0 ? begin / kColumns : 0);
    const int64_t tiles = (end + kColumns - 1) / kColumns - begin_;
    tiles_ = end > 0 && tiles > 0 ? static_cast<int>(tiles) : 0;
    heads_ = kKeysAreRows ? static_cast<int>(p_.H / p_.G) : 1;
  }

  SUFFUSE_DEVICE bool writes_bias() const {
    return kGeneral && !kKeysAreRows && attention_bias_is_whole(g_);
  }

  template <class Tile>
  SUFFUSE_DEVICE void load(Tile& tile, const AttentionRows<S>& rows, int first) const {
    if constexpr (kGeneral) {
      AnyLoads<Tile, Config::kThreads>(rows, first, {}, bytes_).next(tile);
    } else {
      AlignedLoads<Tile, Config::kThreads>(rows, first).next(tile);
    }
  }

  // The rows are on their way, their sums are 0.
  SUFFUSE_DEVICE void start() {
    if (tiles_ > 0) {
      if constexpr (kKeysAreRows) {
        load(shared_.rows.qk, keys(p_.k, p_.D), block_.first);
        load(shared_.rows.gv, keys(p_.v, p_.Dv), block_.first);
      } else {
        load(shared_.rows.qk, queries(p_.q, block_.head, p_.D), block_.first);
        load(shared_.rows.gv, queries(g_.grad_out, block_.head, p_.Dv), block_.first);
        load_row_terms();
      }
    }
    warp_.clear_sums();
  }

  SUFFUSE_DEVICE void load_row_terms() {
    const AttentionRowTerms from = row_terms(g_, s_, block_.head);
    const int lane = gpu::lane();
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = block_.first + row_ + 16 * m + 8 * half + (lane >> 2);
        const bool inside = row < terms_.queries;
        lse_[m][half] = inside ? from.lse[row] : 0.f;
        delta_[m][half] = inside ? from.delta[row] : 0.f;
      }
    }
  }

  // What load_columns starts from: the first head's columns.
  SUFFUSE_DEVICE void find_columns() {
    if constexpr (kKeysAreRows) {
      qk_ = queries(p_.q, head_of(0), p_.D);
      gv_ = queries(g_.grad_out, head_of(0), p_.Dv);
      column_terms_ = row_terms(g_, s_, head_of(0)).lse;
    } else {
      qk_ = keys(p_.k, p_.D);
      gv_ = keys(p_.v, p_.Dv);
    }
  }

  SUFFUSE_DEVICE void load_columns(Stage& stage, int i) {
    const int column = (begin_ + i % tiles_) * kColumns, head = i / tiles_;
    AttentionRows<S> qk = qk_, gv = gv_;
    if constexpr (kKeysAreRows) {
      qk.data += head * p_.q.head;
      gv.data += head * g_.grad_out.head;
      static_assert(Config::kThreads >= 2 * kColumns);
      const int thread = threadIdx.x, c = thread % kColumns;
      if (thread < 2 * kColumns) {
        const bool inside = column + c < terms_.queries, second = thread >= kColumns;
        const float* source = column_terms_ + head * p_.lse_head;
        if (inside) source += (second ? attention_lse_rows(p_) : 0) + column + c;
        gpu::copy_async<4>(second ? &stage.delta[c] : &stage.lse[c], source, inside);
      }
    }
    load(stage.qk, qk, column);
    load(stage.gv, gv, column);
  }

  SUFFUSE_DEVICE void add_columns(const Stage& stage, int i) {
    if constexpr (kKeysAreRows && kGeneral) {
      terms_ = score_terms<kGeneral, S>(p_, s_, head_of(i / tiles_));
    }
    const int first = (begin_ + i % tiles_) * kColumns;
#pragma unroll 1
    for (int c = 0; c < kColumns; c += kChunk) {
      if (sees_any(first + c)) add_chunk(stage, c, first + c);
    }
  }

  // Whether the warp's rows and the columns [column, column + kChunk) see any of each other.
  SUFFUSE_DEVICE bool sees_any(int column) const {
    if (writes_bias()) return true;
    const int row = block_.first + row_;
    const int key = kKeysAreRows ? row : column, query = kKeysAreRows ? column : row;
    const int keys = kKeysAreRows ? Config::kRowsOfWarp : kChunk;
    const int queries = kKeysAreRows ? kChunk : Config::kRowsOfWarp;
    const int position = query + terms_.shift;
    return key < terms_.keys && query < terms_.queries &&
           key - (position + queries - 1) <= terms_.right &&
           key + keys - 1 - position >= -terms_.left;
  }

  SUFFUSE_DEVICE void add_chunk(const Stage& stage, int c, int column) {
    Fragments s, dp;
    const int own = warp_.first_column();
    warp_.multiply_rows(s, shared_.rows.qk, stage.qk, c + own);
    warp_.multiply_rows(dp, shared_.rows.gv, stage.gv, c + own);
    differentiate(s, dp, stage, c + own, column + own);
    warp_.add_chunk(s, dp, stage, c);
  }

  SUFFUSE_DEVICE void differentiate(Fragments& s, Fragments& dp, const Stage& stage, int c,
                                    int column) {
    const int row = block_.first + row_;
    const bool whole =
        kKeysAreRows ? all_seen(terms_, column, Config::kOwnColumns, row, Config::kRowsOfWarp)
                     : all_seen(terms_, row, Config::kRowsOfWarp, column, Config::kOwnColumns);
    if (whole) {
      differentiate_fragments<false>(s, dp, stage, c, column);
    } else {
      differentiate_fragments<true>(s, dp, stage, c, column);
    }
  }
  template <bool kMasked>
  SUFFUSE_DEVICE void differentiate_fragments(Fragments& s, Fragments& dp, const Stage& stage,
                                              int c, int column) {
    const int lane = gpu::lane();
#pragma unroll
    for (int n = 0; n < kTilesN; n++) {
      float lse[2], delta[2];
      if constexpr (kKeysAreRows) {
        const int at = c + 8 * n + (lane & 3) * 2;
        const float2 of_lse = gpu::load_vector<float2>(&stage.lse[at]);
        const float2 of_delta = gpu::load_vector<float2>(&stage.delta[at]);
        lse[0] = of_lse.x, lse[1] = of_lse.y;
        delta[0] = of_delta.x, delta[1] = of_delta.y;
      }
#pragma unroll
      for (int m = 0; m < kTilesM; m++) {
        if constexpr (!kKeysAreRows) {
          lse[0] = lse_[m][0], lse[1] = lse_[m][1];
          delta[0] = delta_[m][0], delta[1] = delta_[m][1];
        }
        differentiate_scores<S, kKeysAreRows, kGeneral, kMasked>(
            s[m][n], dp[m][n], terms_, block_.first + row_ + 16 * m, column + 8 * n, lse, delta,
            [&](int, int query, int key, float value) { write_bias(query, key, value); });
      }
    }
  }

  SUFFUSE_DEVICE void write_bias(int query, int key, float value) const {
    if (!writes_bias() || query >= p_.T || key >= p_.S) return;
    static_cast<float*>(g_.grad_bias)[s_.b * g_.grad_bias_batch + block_.head * g_.grad_bias_head +
                                      query * g_.grad_bias_row + key * g_.grad_bias_key] = value;
  }

  SUFFUSE_DEVICE void finish() {
    warp_.store_sums(static_cast<float>(p_.scores.scale));
    __syncthreads();
    if constexpr (kKeysAreRows) {
      store(shared_.out[0], g_.grad_k, keys(g_.grad_k, p_.D), attention_key_room(p_, s_.b));
      store(shared_.out[1], g_.grad_v, keys(g_.grad_v, p_.Dv), attention_key_room(p_, s_.b));
    } else {
      store(shared_.out[0], g_.grad_q, queries(g_.grad_q, block_.head, p_.D),
            attention_query_room(p_, s_.b));
    }
  }
  SUFFUSE_DEVICE void store(const typename Shared::Out& tile, const AttentionTensor& t,
                            const AttentionRows<S>& rows, int64_t room) const {
    const Matrix<S> to = {const_cast<S*>(rows.data), t.row, static_cast<int>(room), rows.columns};
    if (!kGeneral || bytes_ == 16) {
      store_tile<16, Config::kThreads>(tile, to, block_.first, 0);
    } else {
      store_tile<sizeof(S), Config::kThreads>(tile, to, block_.first, 0);
    }
  }

  const AttentionGradParams& g_;
  const AttentionParams& p_;
  const AttentionSequence& s_;
  const AttentionGradBlock& block_;
  Shared& shared_;
  AttentionBackwardWarp<Config> warp_;
  int bytes_, row_, begin_, tiles_, heads_;
  ScoreTerms terms_;
  AttentionRows<S> qk_, gv_;
  const float* column_terms_ = nullptr;
  float lse_[kTilesM][2], delta_[kTilesM][2];
};

// Launched by attention_backward_shape. bytes: attention_grad_copy_bytes.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    attention_backward_kernel(const __grid_constant__ AttentionGradParams g, int bytes) {
  auto& shared = gpu::shared<AttentionBackwardShared<Config>>();
  const AttentionParams& p = g.forward;
  const AttentionGradBlock block = attention_grad_block<Config>(p);
  const AttentionSequence s = attention_sequence(p, block.b);
  int64_t rows = Config::kKeysAreRows ? attention_key_room(p, s.b) : attention_query_room(p, s.b);
  if (Config::kGeneral && !Config::kKeysAreRows && attention_bias_is_whole(g)) rows = p.T;
  if (block.first < rows) AttentionBackwardBlock<Config>(g, s, block, bytes, shared).run();
}

}  // namespace suffuse
