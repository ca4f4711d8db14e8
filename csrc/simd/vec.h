// The machine vector and the words that kernels are written in. One kernel source, compiled once
// per ISA with that ISA's flags and SUFFUSE_ISA set to its name, gives the kernel for that ISA.
//
// clang-format off
// Vec<float>   16 lanes (AVX-512), 8 (AVX2), 4 (any other CPU); Vec<double> half; count Vec<T>::N
// V(x)         broadcast, implicit: `2.f * v + 1.f` works; V() leaves the lanes uninitialised
// + - * /      on vectors; unary -, += -= *=
//
// zero<V>()                        all lanes +0
// load<V>(p), load<V>(p, n)        N elements, or the first n (0 to N): the others are 0, memory
//                                  past p + n is not touched. Any alignment. Vec<float>
//                                  reads float, bfloat16, float16; Vec<double> reads double.
// store(p, x), store(p, x, n)      the same back, rounded to nearest even; NaN stays NaN
// stream(p, x), stream_fence()     store around the caches where the ISA can; p is aligned to what
//                                  is stored
// fma(a, b, c)                     a b + c rounded once on every ISA: slow without an instruction
// fms(a, b, c), fnma(a, b, c)      a b - c, c - a b, likewise
// muladd(a, b, c)                  a b + c, fused where that is fast, else rounded twice
// min(a, b), max(a, b)             b if either is NaN or both are 0: what may be NaN goes second
// abs sqrt round copysign(m, s)    round: to nearest, ties to even
//
// < <= > >= ==, is_nan(x)          Mask<V>; comparisons with NaN are false
// select(m, a, b)                  m ? a : b per lane, on V and on Int<V>
// any(m) all(m) & | ~              first<V>(n): the first n lanes
//
// Int<V>                           as wide as V's elements: bits(x), from_bits<V>(i), Int<V>(k)
// + - & | ^ ~                      modulo 2^32 (2^64 for double)
// shl<k>(i) shr<k>(i) sar<k>(i)    shifts by a constant; shr fills with zeros, sar with the sign
// nonzero(i)                       Mask<V> of the lanes that are not 0
// to_float(i), to_int(x)           conversions; to_int rounds to nearest even, needs |x| < 2^31
// load_int<V>(p), store_int(p, i)  int32_t or uint32_t words, also with n as above; V = Vec<float>
//
// scale2(x, n)                     x 2^n, rounded once, for every finite integral-valued n
// scale2_near_one(x, n)            the same, cheaper; |x| in 2^-30 .. 2^30 or n = 0, |n| <= 250
// reduce_add reduce_max reduce_min over the lanes, i with i + N/2 first; NaN in reduce_add only
// transpose(r)                     V r[N]: r[i] lane j <-> r[j] lane i
// dot_bf16(acc, a, b)              acc + a.hi b.hi + a.lo b.lo of bfloat16 pairs in 32-bit words;
//                                  AVX512-BF16 takes subnormal inputs and results as 0
// pack_bf16(lo, hi)                such words, to nearest even; the same remark
// lookup32(table, i)               table[i mod 32]; AVX-512 only: two registers hold the table
// reciprocal_estimate(x)           1 / x within 2^-14; AVX-512 only
// clang-format on
//
// The vector math functions are in simd/math.h, products of 32-bit words in simd/pairs.h.
#pragma once

#if !defined(SUFFUSE_ISA)
#error "SUFFUSE_ISA is not defined: compile with -DSUFFUSE_ISA=scalar, avx2, avx512 ..."
#endif

#include "simd/vec_lanes.h"

#if defined(__AVX512F__)
#include "simd/vec_avx512.h"
#elif defined(__AVX2__)
#include "simd/vec_avx2.h"
#endif

namespace suffuse {
namespace SUFFUSE_ISA {

template <class V>
SUFFUSE_INLINE V zero() {
  return V(0);
}
template <class V, class S>
SUFFUSE_INLINE V load(const S* p) {
  return V::load(p);
}
template <class V, class S>
SUFFUSE_INLINE V load(const S* p, int n) {
  return V::load(p, n);
}
template <class V>
SUFFUSE_INLINE Mask<V> first(int n) {
  return Mask<V>::first(n);
}
template <class V>
SUFFUSE_INLINE V from_bits(Int<V> i) {
  return V::from_bits(i);
}
template <class V, class I>
SUFFUSE_INLINE Int<V> load_int(const I* p) {
  static_assert(sizeof(I) == 4, "load_int: int32_t or uint32_t");
  return Int<V>::load(reinterpret_cast<const int32_t*>(p));
}
template <class V, class I>
SUFFUSE_INLINE Int<V> load_int(const I* p, int n) {
  static_assert(sizeof(I) == 4, "load_int: int32_t or uint32_t");
  return Int<V>::load(reinterpret_cast<const int32_t*>(p), n);
}
template <class V>
SUFFUSE_INLINE void store_int(uint32_t* p, Int<V> i) {
  store_int(reinterpret_cast<int32_t*>(p), i);
}
template <class V>
SUFFUSE_INLINE void store_int(uint32_t* p, Int<V> i, int n) {
  store_int(reinterpret_cast<int32_t*>(p), i, n);
}

#if !defined(__AVX2__)
SUFFUSE_INLINE void stream_fence() {}
#else
SUFFUSE_INLINE void stream_fence() { _mm_sfence(); }
#endif

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
