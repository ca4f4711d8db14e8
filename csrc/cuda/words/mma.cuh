// Tensor cores of sm_80 and later: one warp, all 32 lanes together.
//
// Fragments: lane = 4 g + t with g in 0 .. 7 and t in 0 .. 3. A register of 16-bit elements holds
// two that are neighbours in a row (A) or a column (B), the one of the lower index in bits 0 to 15.
//
//   8 x 8 matrix m of load_matrix   r[m]  (g, 2t), (g, 2t + 1)
//     transposed                    r[m]  (2t, g), (2t + 1, g)
//
//   m16n8k16                        A 16 x 16, B 16 x 8, D 16 x 8
//     a[0]  A(g,     2t), (g,     2t + 1)     b[0]  B(2t,     g), (2t + 1, g)
//     a[1]  A(g + 8, 2t), (g + 8, 2t + 1)     b[1]  B(2t + 8, g), (2t + 9, g)
//     a[2]  A(g,     2t + 8), (g,     2t + 9)
//     a[3]  A(g + 8, 2t + 8), (g + 8, 2t + 9)
//
//   m16n8k8_tf32                    A 16 x 8, B 8 x 8, D 16 x 8
//     a[0]  A(g,     t)                       b[0]  B(t,     g)
//     a[1]  A(g + 8, t)                       b[1]  B(t + 4, g)
//     a[2]  A(g,     t + 4)
//     a[3]  A(g + 8, t + 4)
//
//   D of both                       d[0], d[1]  D(g, 2t), (g, 2t + 1)
//                                   d[2], d[3]  D(g + 8, 2t), (g + 8, 2t + 1)
//
// So load_matrix_x4 gives A of m16n8k16 from the four matrices (rows 0-7, columns 0-7), (8-15,
// 0-7), (0-7, 8-15), (8-15, 8-15); load_matrix_x2 gives B where B's columns are the rows in memory,
// load_matrix_x2_transposed where B's rows are.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "cuda/words/memory.cuh"

namespace suffuse::gpu {

// One 8 x 8 matrix of 16-bit elements from shared memory. Lane i < 8 gives the address of row i: 16
// bytes at a multiple of 16; the other lanes' addresses are not looked at. PTX:
// ldmatrix.m8n8.x1.b16.
SUFFUSE_DEVICE void load_matrix_x1(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

// Two of them: lanes 0 to 7 give the rows of matrix 0, lanes 8 to 15 those of matrix 1.
SUFFUSE_DEVICE void load_matrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// Four of them: lanes 8 m to 8 m + 7 give the rows of matrix m.
SUFFUSE_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// load_matrix_x1 of the transposed matrix. PTX: ldmatrix.m8n8.x1.trans.b16.
SUFFUSE_DEVICE void load_matrix_x1_transposed(uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

// load_matrix_x2 of the transposed matrices.
SUFFUSE_DEVICE void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// load_matrix_x4 of the transposed matrices.
SUFFUSE_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b with a 16 x 16 and b 16 x 8 of S: bfloat16 or float16. Products are exact, sums are
// float. PTX: mma.m16n8k16.row.col.f32.{bf16,f16}.
template <class S>
SUFFUSE_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<S, bfloat16> || std::is_same_v<S, float16>);
  if constexpr (std::is_same_v<S, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// d += a b with a 16 x 8 and b 8 x 8 of to_tf32. PTX: mma.m16n8k8.row.col.f32.tf32.
SUFFUSE_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                     const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace suffuse::gpu
