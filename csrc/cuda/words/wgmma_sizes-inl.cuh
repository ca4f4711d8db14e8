// The text of wgmma.mma_async for every N that is offered. An instruction names all N / 2 registers
// of its accumulator, so that the text is put together by macros.
#pragma once

// The names of registers 0 to n - 1.
#define SUFFUSE_NAMES_4 "%0, %1, %2, %3"
#define SUFFUSE_NAMES_8 SUFFUSE_NAMES_4 ", %4, %5, %6, %7"
#define SUFFUSE_NAMES_16 SUFFUSE_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SUFFUSE_NAMES_32                          \
  SUFFUSE_NAMES_16                                \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24" \
  ", %25, %26, %27, %28, %29, %30, %31"
#define SUFFUSE_NAMES_48                          \
  SUFFUSE_NAMES_32                                \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40" \
  ", %41, %42, %43, %44, %45, %46, %47"
#define SUFFUSE_NAMES_64                          \
  SUFFUSE_NAMES_48                                \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56" \
  ", %57, %58, %59, %60, %61, %62, %63"
#define SUFFUSE_NAMES_96                          \
  SUFFUSE_NAMES_64                                \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72" \
  ", %73, %74, %75, %76, %77, %78, %79, %80, %81" \
  ", %82, %83, %84, %85, %86, %87, %88, %89, %90" \
  ", %91, %92, %93, %94, %95"
#define SUFFUSE_NAMES_128                                  \
  SUFFUSE_NAMES_96                                         \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104"     \
  ", %105, %106, %107, %108, %109, %110, %111, %112, %113" \
  ", %114, %115, %116, %117, %118, %119, %120, %121, %122" \
  ", %123, %124, %125, %126, %127"

// Registers o to o + n - 1 of d as operands.
#define SUFFUSE_D4(o) "+f"(d[(o)]), "+f"(d[(o) + 1]), "+f"(d[(o) + 2]), "+f"(d[(o) + 3])
#define SUFFUSE_D8(o) SUFFUSE_D4(o), SUFFUSE_D4((o) + 4)
#define SUFFUSE_D16(o) SUFFUSE_D8(o), SUFFUSE_D8((o) + 8)
#define SUFFUSE_D32(o) SUFFUSE_D16(o), SUFFUSE_D16((o) + 16)
#define SUFFUSE_D48(o) SUFFUSE_D32(o), SUFFUSE_D16((o) + 32)
#define SUFFUSE_D64(o) SUFFUSE_D32(o), SUFFUSE_D32((o) + 32)
#define SUFFUSE_D96(o) SUFFUSE_D64(o), SUFFUSE_D32((o) + 64)
#define SUFFUSE_D128(o) SUFFUSE_D64(o), SUFFUSE_D64((o) + 64)

// `shape` is the end of the instruction's name, `a` the text of its first operand, p the name of
// `accumulate`, `majors` the text of the transpositions.
#define SUFFUSE_WGMMA_TEXT(n, shape, registers, a, b, p, majors)             \
  "{\n"                                                                      \
  ".reg .pred accumulate;\n"                                                 \
  "setp.ne.b32 accumulate, " p                                               \
  ", 0;\n"                                                                   \
  "wgmma.mma_async.sync.aligned.m64n" #n shape " {" registers "}, " a ", " b \
  ", accumulate, 1, 1" majors                                                \
  ";\n"                                                                      \
  "}"

// i0 to i6: the names of the operands after the registers of d.
#define SUFFUSE_WGMMA_SIZE(n, registers, operands, i0, i1, i2, i3, i4, i5, i6)                     \
  template <>                                                                                      \
  struct WgmmaSize<n> {                                                                            \
    template <class S, bool kA, bool kB>                                                           \
    SUFFUSE_DEVICE static void run(float (&d)[n / 2], uint64_t a, uint64_t b, int p) {             \
      if constexpr (std::is_same_v<S, bfloat16>) {                                                 \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k16.f32.bf16.bf16", registers, i0, i1, i2,            \
                                         ", " i3 ", " i4) : operands : "l"(a),                     \
                      "l"(b), "r"(p), "n"(int{kA}), "n"(int{kB}));                                 \
      } else if constexpr (std::is_same_v<S, float16>) {                                           \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k16.f32.f16.f16", registers, i0, i1, i2,              \
                                         ", " i3 ", " i4) : operands : "l"(a),                     \
                      "l"(b), "r"(p), "n"(int{kA}), "n"(int{kB}));                                 \
      } else {                                                                                     \
        static_assert(std::is_same_v<S, float>);                                                   \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k8.f32.tf32.tf32", registers, i0, i1, i2,             \
                                         "") : operands : "l"(a),                                  \
                      "l"(b), "r"(p));                                                             \
      }                                                                                            \
    }                                                                                              \
    template <class S, bool kB>                                                                    \
    SUFFUSE_DEVICE static void run(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, int p) { \
      if constexpr (std::is_same_v<S, bfloat16>) {                                                 \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k16.f32.bf16.bf16", registers,                        \
                                         "{" i0 ", " i1 ", " i2 ", " i3 "}", i4, i5,               \
                                         ", " i6) : operands : "r"(a[0]),                          \
                      "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p), "n"(int{kB}));              \
      } else if constexpr (std::is_same_v<S, float16>) {                                           \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k16.f32.f16.f16", registers,                          \
                                         "{" i0 ", " i1 ", " i2 ", " i3 "}", i4, i5,               \
                                         ", " i6) : operands : "r"(a[0]),                          \
                      "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p), "n"(int{kB}));              \
      } else {                                                                                     \
        static_assert(std::is_same_v<S, float>);                                                   \
        SUFFUSE_SM90A(SUFFUSE_WGMMA_TEXT(n, "k8.f32.tf32.tf32", registers,                         \
                                         "{" i0 ", " i1 ", " i2 ", " i3 "}", i4, i5,               \
                                         "") : operands : "r"(a[0]),                               \
                      "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p));                            \
      }                                                                                            \
    }                                                                                              \
  }

namespace suffuse::gpu {

template <int N>
struct WgmmaSize;

SUFFUSE_WGMMA_SIZE(8, SUFFUSE_NAMES_4, SUFFUSE_D4(0), "%4", "%5", "%6", "%7", "%8", "%9", "%10");
SUFFUSE_WGMMA_SIZE(16, SUFFUSE_NAMES_8, SUFFUSE_D8(0), "%8", "%9", "%10", "%11", "%12", "%13",
                   "%14");
SUFFUSE_WGMMA_SIZE(32, SUFFUSE_NAMES_16, SUFFUSE_D16(0), "%16", "%17", "%18", "%19", "%20", "%21",
                   "%22");
SUFFUSE_WGMMA_SIZE(64, SUFFUSE_NAMES_32, SUFFUSE_D32(0), "%32", "%33", "%34", "%35", "%36", "%37",
                   "%38");
SUFFUSE_WGMMA_SIZE(96, SUFFUSE_NAMES_48, SUFFUSE_D48(0), "%48", "%49", "%50", "%51", "%52", "%53",
                   "%54");
SUFFUSE_WGMMA_SIZE(128, SUFFUSE_NAMES_64, SUFFUSE_D64(0), "%64", "%65", "%66", "%67", "%68", "%69",
                   "%70");
SUFFUSE_WGMMA_SIZE(192, SUFFUSE_NAMES_96, SUFFUSE_D96(0), "%96", "%97", "%98", "%99", "%100",
                   "%101", "%102");
SUFFUSE_WGMMA_SIZE(256, SUFFUSE_NAMES_128, SUFFUSE_D128(0), "%128", "%129", "%130", "%131", "%132",
                   "%133", "%134");

}  // namespace suffuse::gpu

#undef SUFFUSE_WGMMA_SIZE
#undef SUFFUSE_WGMMA_TEXT
#undef SUFFUSE_NAMES_4
#undef SUFFUSE_NAMES_8
#undef SUFFUSE_NAMES_16
#undef SUFFUSE_NAMES_32
#undef SUFFUSE_NAMES_48
#undef SUFFUSE_NAMES_64
#undef SUFFUSE_NAMES_96
#undef SUFFUSE_NAMES_128
#undef SUFFUSE_D4
#undef SUFFUSE_D8
#undef SUFFUSE_D16
#undef SUFFUSE_D32
#undef SUFFUSE_D48
#undef SUFFUSE_D64
#undef SUFFUSE_D96
#undef SUFFUSE_D128
