// The machine vector and the words that kernels are written in. One kernel source, compiled once per ISA with that
// ISA's flags and SUFFUSE_ISA set to its name, gives the kernel for that ISA.
//
//   Vec<float>   16 lanes (AVX-512), 8 (AVX2), 4 (any other CPU);  Vec<double> half as many.  Vec<T>::N is the count.
//   V(x)         broadcast, implicit, so that `2.f * v + 1.f` works; V() leaves the lanes uninitialised
//   + - * /      on vectors; unary -, += -= *=
//
//   zero<V>()                        all lanes +0
//   load<V>(p), load<V>(p, n)        N elements, or the first n (0 <= n <= N; the other lanes are 0 and no memory past
//                                    p + n is touched). p need not be aligned. Vec<float> reads float, bfloat16 and
//                                    float16; Vec<double> reads double.
//   store(p, x), store(p, x, n)      the same types back; rounds to nearest even, overflows to inf, keeps NaN a NaN
//   stream(p, x), stream_fence()     store around the caches where the ISA can; p is aligned to the N stored elements
//   fma(a, b, c)                     a b + c with one rounding on every ISA; slow where the machine has no such
//   fms(a, b, c), fnma(a, b, c)      a b - c, c - a b                                              instruction
//   muladd(a, b, c)                  a b + c, fused where that is fast, else rounded twice: for products of matrices
//   min(a, b), max(a, b)             b if either is NaN or both are zeros: put what may be NaN second to keep it
//   abs sqrt round copysign(m, s)    round: to nearest, ties to even
//
//   < <= > >= ==, is_nan(x)          Mask<V>; comparisons with NaN are false
//   select(m, a, b)                  m ? a : b per lane, on V and on Int<V>
//   any(m) all(m) & | ~              first<V>(n): the first n lanes
//
//   Int<V>                           as many integers, as wide as V's elements: bits(x), from_bits<V>(i), Int<V>(x)
//   + - & | ^                        modulo 2^32 (2^64 for double)
//   shl<k>(i) shr<k>(i) sar<k>(i)    shifts by a constant; shr fills with zeros, sar with the sign
//   nonzero(i)                       Mask<V> of the lanes that are not 0
//   to_float(i), to_int(x)           conversions; to_int rounds to nearest even and needs |x| < 2^31
//   load_int<V>(p), store_int(p, i)  int32_t or uint32_t words, also with n as above (V = Vec<float> only)
//
//   scale2(x, n)                     x 2^n, one rounding, for every finite integral-valued n
//   scale2_near_one(x, n)            the same, cheaper, for 2^-30 <= |x| <= 2^30 (any x at n = 0) and |n| <= 250
//   reduce_add reduce_max reduce_min over the lanes, halving: lane i with lane i + N/2 first. NaN: reduce_add only
//   transpose(r)                     V r[N]: r[i] lane j <-> r[j] lane i
//   dot_bf16(acc, a, b)              acc + a.hi b.hi + a.lo b.lo, where a, b hold a bfloat16 pair per 32-bit word; on
//                                    AVX512-BF16 subnormal inputs and results count as 0
//   lookup32(table, i)               table[i mod 32]; AVX-512 only, where two registers hold the table
//   pack_bf16(lo, hi)                such words, rounded to nearest even; the same remark
//
// The vector math functions are in simd/math.h.
#pragma once

#if !defined(SUFFUSE_ISA)
#error "SUFFUSE_ISA is not defined: compile with -DSUFFUSE_ISA=scalar, avx2, avx512 or avx512_bf16"
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
