// ldmatrix and mma.sync: fragments as the PTX ISA lays them out.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "emulator/state.h"

namespace emulator {
namespace {

struct MatrixLoad {
  const char* row;
  uint32_t* r;
  int count;
  bool transposed;
  Where where;
};

// The rows of matrix m are given by lanes 8 m to 8 m + 7.
void find_rows(const Lanes& lanes, int m, const char* (&rows)[8]) {
  Traffic& traffic = engine.report.counters.matrix_load;
  int banks[32] = {};
  for (int i = 0; i < 8; i++) {
    const auto& load = *static_cast<const MatrixLoad*>(lanes.in[8 * m + i]);
    rows[i] = load.row;
    const std::string lane = "row of lane " + std::to_string(8 * m + i) + " of a load_matrix";
    if (!is_shared(rows[i])) fail("out of bounds", lane + " is not in shared memory", load.where);
    if (shared_offset(rows[i]) % 16) fail("misaligned", lane + " is not on 16 bytes", load.where);
    if (std::find(rows, rows + i, rows[i]) != rows + i) continue;
    for (size_t k = 0; k < 4; k++) ++banks[(shared_offset(rows[i]) / 4 + k) & 31];
  }
  ++traffic.ideal;
  traffic.sectors += static_cast<uint64_t>(*std::max_element(banks, banks + 32));
  traffic.bytes += 128;
}

// Each byte counts as read by the lane that receives it.
void load_matrices(const Lanes& lanes) {
  Fiber* self = engine.current;
  const auto& first = *static_cast<const MatrixLoad*>(lanes.in[0]);
  const uint32_t site = site_of(first.where);
  ++engine.report.counters.matrix_load.requests;
  for (int m = 0; m < first.count; m++) {
    const char* rows[8];
    find_rows(lanes, m, rows);
    for (int lane = 0; lane < 32; lane++) {
      engine.current = &engine.fibers[self->warp * 32 + lane];
      uint16_t halves[2];
      for (int e = 0; e < 2; e++) {
        const char* p = first.transposed ? rows[2 * (lane & 3) + e] + 2 * (lane >> 2)
                                         : rows[lane >> 2] + 4 * (lane & 3) + 2 * e;
        access(p, 2, Kind::read, site, false);
        std::memcpy(&halves[e], p, 2);
      }
      static_cast<const MatrixLoad*>(lanes.in[lane])->r[m] = halves[0] | uint32_t(halves[1]) << 16;
    }
    engine.current = self;
  }
}

struct MmaOperands {
  const uint32_t *a, *b;
  const float* c;
  MmaType type;
};

template <int K>
void gather(const Lanes& lanes, float (&a)[16][K], float (&b)[K][8], float (&c)[16][8]) {
  for (int lane = 0; lane < 32; lane++) {
    const auto& in = *static_cast<const MmaOperands*>(lanes.in[lane]);
    const int group = lane >> 2, quad = lane & 3;
    for (int r = 0; r < 4; r++) {
      const int row = group + 8 * (r & 1);
      if constexpr (K == 16) {
        const int column = 2 * quad + 8 * (r >> 1);
        for (int e = 0; e < 2; e++) {
          a[row][column + e] = widen_operand(in.a[r] >> (16 * e) & 0xffff, in.type);
        }
      } else {
        a[row][quad + 4 * (r >> 1)] = widen_operand(in.a[r], in.type);
      }
    }
    for (int r = 0; r < 2; r++) {
      if constexpr (K == 16) {
        for (int e = 0; e < 2; e++) {
          b[2 * quad + 8 * r + e][group] = widen_operand(in.b[r] >> (16 * e) & 0xffff, in.type);
        }
      } else {
        b[quad + 4 * r][group] = widen_operand(in.b[r], in.type);
      }
    }
    for (int e = 0; e < 4; e++) c[group + 8 * (e >> 1)][2 * quad + (e & 1)] = in.c[e];
  }
}

template <int K>
void multiply(const Lanes& lanes) {
  float a[16][K], b[K][8], c[16][8];
  gather<K>(lanes, a, b, c);
  for (int row = 0; row < 16; row++) {
    for (int n = 0; n < 8; n++) c[row][n] = dot_product(a[row], 1, &b[0][n], 8, K, c[row][n]);
  }
  for (int lane = 0; lane < 32; lane++) {
    for (int e = 0; e < 4; e++) {
      static_cast<float*>(lanes.out[lane])[e] =
          c[(lane >> 2) + 8 * (e >> 1)][2 * (lane & 3) + (e & 1)];
    }
  }
  ++engine.report.counters.mma;
}

// Ampere's way: terms aligned to the largest, cut off 24 bits below it.
float truncated_sum(const double* terms, int count) {
  int exponent = -200;
  for (int i = 0; i < count; i++) {
    if (!std::isfinite(terms[i])) {
      double sum = 0;
      for (int k = 0; k < count; k++) sum += terms[k];
      return static_cast<float>(sum);
    }
    if (terms[i] != 0) exponent = std::max(exponent, std::ilogb(terms[i]));
  }
  const double unit = std::ldexp(1.0, exponent - 24);
  double sum = 0;
  for (int i = 0; i < count; i++) sum += std::trunc(terms[i] / unit) * unit;
  const float rounded = static_cast<float>(sum);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(sum) ? std::nextafter(rounded, 0.f)
                                                                  : rounded;
}

}  // namespace

float widen_operand(uint32_t bits, MmaType type) {
  if (type == MmaType::f16) {
    const auto half = static_cast<uint16_t>(bits);
    _Float16 value;
    std::memcpy(&value, &half, 2);
    return static_cast<float>(value);
  }
  const uint32_t word = type == MmaType::bf16 ? bits << 16 : bits & 0xffffe000u;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

float dot_product(const float* a, int a_stride, const float* b, int b_stride, int count, float c) {
  if (engine.options.mma == MmaRounding::ideal) {
    double sum = c;
    for (int k = 0; k < count; k++) sum += static_cast<double>(a[k * a_stride]) * b[k * b_stride];
    return static_cast<float>(sum);
  }
  for (int first = 0; first < count; first += 8) {
    double terms[9];
    const int n = std::min(8, count - first);
    for (int k = 0; k < n; k++) {
      terms[k] = static_cast<double>(a[(first + k) * a_stride]) * b[(first + k) * b_stride];
    }
    terms[n] = c;
    c = truncated_sum(terms, n + 1);
  }
  return c;
}

void load_matrix(uint32_t* r, const void* row, int count, bool transposed, Where where) {
  const MatrixLoad load{static_cast<const char*>(row), r, count, transposed, where};
  collective("load_matrix", 0xffffffffu, &load, nullptr, load_matrices, where);
}

void mma(float* d, const uint32_t* a, const uint32_t* b, const float* c, MmaType type,
         Where where) {
  const MmaOperands operands{a, b, c, type};
  collective("mma", 0xffffffffu, &operands, d, type == MmaType::tf32 ? multiply<8> : multiply<16>,
             where);
}

}  // namespace emulator
