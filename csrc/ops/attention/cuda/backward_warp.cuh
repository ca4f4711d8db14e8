// What one warp of the kernels of attention's gradients multiplies, and its sums in registers.
#pragma once

#include "ops/attention/cuda/backward_config.h"
#include "ops/attention/cuda/tile.cuh"

namespace suffuse {

// qk: of q and k. gv: of dO and v. Results take the place of the rows.
template <class Config>
struct AttentionBackwardShared {
  using S = typename Config::S;
  using Rows = Tile<S, Config::kRows, Config::kD>;
  using Columns = Tile<S, Config::kColumns, Config::kD>;
  using Out =
      Tile<S, Config::kRows, Config::kD, Config::kHalf ? TileOrder::rows : TileOrder::columns>;
  struct Stage {
    Columns qk, gv;
    float lse[Config::kColumns], delta[Config::kColumns];  // of queries that are columns
  };
  union {
    struct {
      Rows qk, gv;
    } rows;
    Out out[Config::kSums];
  };
  Stage stages[Config::kStages];
  // What the warps of the same rows exchange: operands of a chunk.
  struct Nothing {};
  using Operands = uint4[Config::kRowWarps][Config::kSums][Config::kSteps][32];
  std::conditional_t<(Config::kColumnWarps > 1), Operands, Nothing> operands;
};

template <class Config>
class AttentionBackwardWarp {
  using S = typename Config::S;
  using Shared = AttentionBackwardShared<Config>;
  using Stage = typename Shared::Stage;
  static constexpr int kTilesM = Config::kTilesM, kTilesN = Config::kTilesN;
  using Operands = uint32_t[Config::kSums][kTilesM][Config::kSteps][4];

 public:
  using Fragments = float[kTilesM][kTilesN][4];

  SUFFUSE_DEVICE explicit AttentionBackwardWarp(Shared& shared) : shared_(shared) {
    const int warp = static_cast<int>(gpu::warp());
    row_warp_ = warp / Config::kColumnWarps;
    part_ = warp % Config::kColumnWarps;
    row_ = row_warp_ * Config::kRowsOfWarp;
  }

  // The warp's first row in the block, and its first column in a chunk.
  SUFFUSE_DEVICE int first_row() const { return row_; }
  SUFFUSE_DEVICE int first_column() const { return part_ * Config::kOwnColumns; }

  SUFFUSE_DEVICE void clear_sums() {
#pragma unroll
    for (int i = 0; i < Config::kSums; i++) {
#pragma unroll
      for (int m = 0; m < kTilesM; m++) {
#pragma unroll
        for (int n = 0; n < Config::kTilesD; n++) {
#pragma unroll
          for (int e = 0; e < 4; e++) sums_[i][m][n][e] = 0;
        }
      }
    }
  }

  // out = rows columns^T for the warp's rows and its columns from `column` of the tile on.
  SUFFUSE_DEVICE void multiply_rows(Fragments& out, const typename Shared::Rows& rows,
                                    const typename Shared::Columns& columns, int column) const {
#pragma unroll
    for (int m = 0; m < kTilesM; m++) {
#pragma unroll
      for (int n = 0; n < kTilesN; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) out[m][n][e] = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < Config::kD; k += Config::kDepth) {
      uint32_t a[kTilesM][4];
#pragma unroll
      for (int m = 0; m < kTilesM; m++) load_queries(a[m], rows, row_ + 16 * m, k);
#pragma unroll
      for (int n = 0; n < kTilesN; n += 2) {
        uint32_t b[2][2];
        if constexpr (kTilesN == 1) {
          const int lane = gpu::lane();
          gpu::load_matrix_x2(b[0], columns.at(column + (lane & 7),
                                               k + (lane >> 3 & 1) * Shared::Columns::kPerChunk));
        } else {
          load_keys(b, columns, k, column + 8 * n);
        }
#pragma unroll
        for (int i = 0; i < 2 && n + i < kTilesN; i++) {
#pragma unroll
          for (int m = 0; m < kTilesM; m++)
            multiply_raw<S, Config::kTf32>(out[m][n + i], a[m], b[i]);
        }
      }
    }
  }

  // Adds the products of a chunk's P and dS with its columns, from column c of the tile on.
  SUFFUSE_DEVICE void add_chunk(const Fragments& s, const Fragments& dp, const Stage& stage,
                                int c) {
    Operands a;
    take_operands(a, s, dp);
#pragma unroll
    for (int step = 0; step < Config::kSteps; step++) {
      add_products(sums_[0], a[0], step, stage.qk, c + step * Config::kDepth);
      if constexpr (Config::kKeysAreRows) {
        add_products(sums_[1], a[1], step, stage.gv, c + step * Config::kDepth);
      }
    }
  }

  // To where the warp's rows were, which other warps do not read any more: those that share them
  // had a barrier behind their last products. dK and dQ have the scale of the scores.
  SUFFUSE_DEVICE void store_sums(float scale) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Config::kSums; i++) {
#pragma unroll
      for (int m = 0; m < kTilesM; m++) {
#pragma unroll
        for (int n = 0; n < Config::kTilesD; n++) {
#pragma unroll
          for (int e = 0; e < 4; e++) sums_[i][m][n][e] *= i == 0 ? scale : 1.f;
          store_result(shared_.out[i], sums_[i][m][n], row_ + 16 * m,
                       part_ * Config::kOwnDim + 8 * n);
        }
      }
    }
  }

 private:
  // The warps of the same rows see what each of them computed. A tile is one chunk then, so that
  // the barrier before the next tile keeps what is given there from what others still take here.
  SUFFUSE_DEVICE void give_operands(const Fragments& s, const Fragments& dp) {
#pragma unroll
    for (int i = 0; i < Config::kSums; i++) {
      uint32_t a[Config::kOwnSteps][4];
      weights_of<S>(a, i == 0 ? dp[0] : s[0]);
#pragma unroll
      for (int step = 0; step < Config::kOwnSteps; step++) {
        gpu::store_vector(operand(i, part_ * Config::kOwnSteps + step),
                          uint4{a[step][0], a[step][1], a[step][2], a[step][3]});
      }
    }
    gpu::named_barrier_sync(1 + row_warp_, 32 * Config::kColumnWarps);
  }
  SUFFUSE_DEVICE uint4* operand(int i, int step) {
    return &shared_.operands[row_warp_][i][step][gpu::lane()];
  }

  // A of the second products: of dS, and where rows are keys of P.
  SUFFUSE_DEVICE void take_operands(Operands& a, const Fragments& s, const Fragments& dp) {
    if constexpr (Config::kColumnWarps > 1) give_operands(s, dp);
#pragma unroll
    for (int i = 0; i < Config::kSums; i++) {
      if constexpr (Config::kColumnWarps > 1) {
#pragma unroll
        for (int step = 0; step < Config::kSteps; step++) {
          const uint4 word = gpu::load_vector<uint4>(operand(i, step));
          uint32_t (&to)[4] = a[i][0][step];
          to[0] = word.x, to[1] = word.y, to[2] = word.z, to[3] = word.w;
        }
      } else {
#pragma unroll
        for (int m = 0; m < kTilesM; m++) weights_of<S>(a[i][m], i == 0 ? dp[m] : s[m]);
      }
    }
  }

  // sums += a times the tile's kDepth rows from `column` on, in the warp's part of the head dim.
  SUFFUSE_DEVICE void add_products(float (&sums)[kTilesM][Config::kTilesD][4],
                                   const uint32_t (&a)[kTilesM][Config::kSteps][4], int step,
                                   const typename Shared::Columns& columns, int column) const {
#pragma unroll
    for (int n = 0; n < Config::kTilesD; n += 2) {
      uint32_t b[2][2];
      load_values(b, columns, column, part_ * Config::kOwnDim + 8 * n);
#pragma unroll
      for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int m = 0; m < kTilesM; m++)
          multiply_raw<S, Config::kTf32>(sums[m][n + i], a[m][step], b[i]);
      }
    }
  }

  Shared& shared_;
  int row_warp_, part_, row_;
  float sums_[Config::kSums][kTilesM][Config::kTilesD][4];
};

}  // namespace suffuse
