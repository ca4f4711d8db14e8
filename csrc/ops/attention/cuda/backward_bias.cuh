// The gradient of a bias that several heads, sequences, queries or keys share: the sum of dS over
// all of them. Where there is nothing to sum, the kernel of dQ writes it (backward.cuh).
#pragma once

#include "ops/attention/cuda/backward_delta.cuh"
#include "ops/attention/cuda/backward_scores.cuh"
#include "ops/attention/cuda/rows.cuh"
#include "ops/attention/cuda/tile.cuh"

namespace suffuse {

// A block adds up kRows queries by kKeys keys of the bias over all that share them, one after
// another; where queries or keys share an element it goes through all of those too. Several blocks
// of a multiprocessor hide each other's copies.
template <class Element, int kHeadDim, bool kTf32_>
struct AttentionBiasGrad {
  using S = Element;
  static constexpr int kD = kHeadDim;
  static constexpr bool kTf32 = kTf32_;
  static constexpr int kRows = kD * sizeof(S) > 512 ? 32 : 64, kKeys = kRows;
  static constexpr int kWarps = kRows / 16, kThreads = 32 * kWarps, kTilesN = kKeys / 8;
};

template <class Config>
struct AttentionBiasShared {
  using Rows = Tile<typename Config::S, Config::kRows, Config::kD>;
  union {
    struct {
      Rows q, grad_out, k, v;
    } tiles;
    float sums[Config::kRows][Config::kKeys + 1];
  };
};

// How often each index of the bias's gradient is shared, and how many there are.
struct AttentionBiasShape {
  int batch, head, row_blocks, key_blocks;  // of the gradient
  int of_batch, of_head, of_row, of_key;    // passes over what shares each of them
};
template <class Config>
SUFFUSE_HD inline AttentionBiasShape attention_bias_shape(const AttentionGradParams& g) {
  const AttentionParams& p = g.forward;
  const int batch = static_cast<int>(p.B), heads = static_cast<int>(p.H);
  const int rows = static_cast<int>(attention_row_blocks(p.T, Config::kRows));
  const int keys = static_cast<int>(attention_row_blocks(p.S, Config::kKeys));
  const bool b = g.grad_bias_batch != 0, h = g.grad_bias_head != 0;
  const bool r = g.grad_bias_row != 0, k = g.grad_bias_key != 0;
  return {b ? batch : 1, h ? heads : 1, r ? rows : 1, k ? keys : 1,
          b ? 1 : batch, h ? 1 : heads, r ? 1 : rows, k ? 1 : keys};
}
template <class Config>
LaunchShape attention_bias_launch(const AttentionGradParams& g) {
  const AttentionBiasShape s = attention_bias_shape<Config>(g);
  return {int64_t{s.batch} * s.head * s.row_blocks * s.key_blocks, Config::kThreads,
          static_cast<int32_t>(sizeof(AttentionBiasShared<Config>))};
}

template <class Config>
class AttentionBiasBlock {
  using S = typename Config::S;
  using Shared = AttentionBiasShared<Config>;
  using Fragments = float[Config::kTilesN][4];
  static constexpr int kDepth = 32 / sizeof(S);

 public:
  SUFFUSE_DEVICE AttentionBiasBlock(const AttentionGradParams& g, int bytes, Shared& shared)
      : g_(g),
        p_(g.forward),
        shared_(shared),
        shape_(attention_bias_shape<Config>(g)),
        bytes_(bytes) {
    uint32_t i = blockIdx.x;
    key_ = static_cast<int>(i % shape_.key_blocks) * Config::kKeys;
    i /= shape_.key_blocks;
    row_ = static_cast<int>(i % shape_.row_blocks) * Config::kRows;
    i /= shape_.row_blocks;
    head_ = static_cast<int>(i % shape_.head);
    batch_ = static_cast<int>(i / shape_.head);
    own_ = static_cast<int>(gpu::warp()) * 16;
  }

  SUFFUSE_DEVICE void run() {
#pragma unroll
    for (int n = 0; n < Config::kTilesN; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sums_[n][e] = 0;
    }
    for (int b = 0; b < shape_.of_batch; b++) {
      const AttentionSequence s = attention_sequence(p_, batch_ + b);
      for (int h = 0; h < shape_.of_head; h++) {
        const ScoreTerms terms = score_terms<true, S>(p_, s, head_ + h);
        for (int r = 0; r < shape_.of_row; r++) {
          for (int k = 0; k < shape_.of_key; k++) {
            add(s, terms, head_ + h, row_ + r * Config::kRows, key_ + k * Config::kKeys);
          }
        }
      }
    }
    finish();
  }

 private:
  // Adds dS of the queries from `row` on and the keys from `key` on, if any of them see each other.
  SUFFUSE_DEVICE void add(const AttentionSequence& s, const ScoreTerms& terms, int head, int row,
                          int key) {
    const int position = row + terms.shift;
    if (row >= terms.queries || key >= terms.keys ||
        key - (position + Config::kRows - 1) > terms.right ||
        key + Config::kKeys - 1 - position < -terms.left) {
      return;
    }
    const int group = head / static_cast<int>(p_.H / p_.G);
    load(shared_.tiles.q, query_rows<S>(p_.q, s, head, p_.D), row);
    load(shared_.tiles.grad_out, query_rows<S>(g_.grad_out, s, head, p_.Dv), row);
    load(shared_.tiles.k, key_rows<S>(p_.k, s, group, p_.D), key);
    load(shared_.tiles.v, key_rows<S>(p_.v, s, group, p_.Dv), key);
    gpu::copy_async_commit();
    gpu::copy_async_wait<0>();
    __syncthreads();
    add_loaded(row_terms(g_, s, head), terms, row + own_, key);
    __syncthreads();  // all are done with the tiles
  }

  template <class Tile>
  SUFFUSE_DEVICE void load(Tile& tile, const AttentionRows<S>& rows, int first) const {
    AnyLoads<Tile, Config::kThreads>(rows, first, {}, bytes_).next(tile);
  }

  SUFFUSE_DEVICE void add_loaded(const AttentionRowTerms& from, const ScoreTerms& terms, int row,
                                 int key) {
    float lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int r = row + 8 * half + static_cast<int>(gpu::lane() >> 2);
      lse[half] = r < terms.queries ? from.lse[r] : 0.f;
      delta[half] = r < terms.queries ? from.delta[r] : 0.f;
    }
#pragma unroll 1  // one after another: all at once would need more registers than there are
    for (int n = 0; n < Config::kTilesN; n += 2) {
      float s[2][4] = {}, dp[2][4] = {};
      multiply(s, shared_.tiles.q, shared_.tiles.k, 8 * n);
      multiply(dp, shared_.tiles.grad_out, shared_.tiles.v, 8 * n);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float gradient[4];
        differentiate_scores<S, false, true, true>(
            s[i], dp[i], terms, row, key + 8 * (n + i), lse, delta,
            [&](int e, int, int, float value) { gradient[e] = value; });
        add_to(n + i, gradient);
      }
    }
  }

  // sums_[n] += x. Registers have no index that is not constant.
  SUFFUSE_DEVICE void add_to(int n, const float (&x)[4]) {
#pragma unroll
    for (int j = 0; j < Config::kTilesN; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sums_[j][e] += j == n ? x[e] : 0.f;
    }
  }

  // out = the warp's rows times 16 of the keys.
  SUFFUSE_DEVICE void multiply(float (&out)[2][4], const typename Shared::Rows& rows,
                               const typename Shared::Rows& keys, int key) const {
#pragma unroll
    for (int k = 0; k < Config::kD; k += kDepth) {
      uint32_t a[4], b[2][2];
      load_queries(a, rows, own_, k);
      load_keys(b, keys, k, key);
#pragma unroll
      for (int i = 0; i < 2; i++) multiply_raw<S, Config::kTf32>(out[i], a, b[i]);
    }
  }

  // Elements that queries or keys share are added up here, in their order.
  SUFFUSE_DEVICE void finish() {
    const int lane = gpu::lane();
#pragma unroll
    for (int n = 0; n < Config::kTilesN; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        shared_.sums[own_ + (lane >> 2) + (e >> 1) * 8][8 * n + (lane & 3) * 2 + (e & 1)] =
            sums_[n][e];
      }
    }
    __syncthreads();
    const bool by_row = g_.grad_bias_row != 0, by_key = g_.grad_bias_key != 0;
    const int rows = by_row ? Config::kRows : 1, keys = by_key ? Config::kKeys : 1;
    const int of_row = by_row ? 1 : Config::kRows, of_key = by_key ? 1 : Config::kKeys;
    for (int i = threadIdx.x; i < rows * keys; i += Config::kThreads) {
      const int r = i / keys, k = i % keys;
      float sum = 0;
      for (int y = 0; y < of_row; y++) {
        for (int x = 0; x < of_key; x++) sum += shared_.sums[r + y][k + x];
      }
      if ((by_row && row_ + r >= p_.T) || (by_key && key_ + k >= p_.S)) continue;
      static_cast<float*>(
          g_.grad_bias)[batch_ * g_.grad_bias_batch + head_ * g_.grad_bias_head +
                        (row_ + r) * g_.grad_bias_row + (key_ + k) * g_.grad_bias_key] = sum;
    }
  }

  const AttentionGradParams& g_;
  const AttentionParams& p_;
  Shared& shared_;
  AttentionBiasShape shape_;
  int bytes_, key_, row_, head_, batch_, own_;
  Fragments sums_;
};

// Launched by attention_bias_launch.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    attention_bias_kernel(const __grid_constant__ AttentionGradParams g, int bytes) {
  auto& shared = gpu::shared<AttentionBiasShared<Config>>();
  AttentionBiasBlock<Config>(g, bytes, shared).run();
}

}  // namespace suffuse
