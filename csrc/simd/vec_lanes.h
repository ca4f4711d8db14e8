// Vec, Mask and Int for any CPU, in the vector extension of GCC and clang: all of the scalar ISA,
// and doubles on every ISA. The words are friends, found through their arguments; vec.h says what
// each means.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "common/macros.h"
#include "simd/lanes.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <class V>
struct Mask;
template <class V>
struct Int;

template <int k, class V>
Int<V> shl(Int<V> a);
template <int k, class V>
Int<V> shr(Int<V> a);
template <int k, class V>
Int<V> sar(Int<V> a);

template <class T>
struct Vec {
  static constexpr int N = kVecBytes / static_cast<int>(sizeof(T));
  using Raw = typename Lanes<T>::Raw;
  using RawInt = typename Lanes<T>::RawInt;
  using M = Mask<Vec>;
  using I = Int<Vec>;
  Raw v;

  Vec() = default;
  SUFFUSE_INLINE Vec(T x) : v(x - Raw{}) {}  // x - 0 is x, -0 included
  SUFFUSE_INLINE explicit Vec(Raw raw) : v(raw) {}

  static SUFFUSE_INLINE Vec load(const T* p) { return load_bytes(p, sizeof(Raw)); }
  static SUFFUSE_INLINE Vec load(const T* p, int n) { return load_bytes(p, n * sizeof(T)); }
  static SUFFUSE_INLINE Vec load(const bfloat16* p) { return load(p, N); }
  static SUFFUSE_INLINE Vec load(const bfloat16* p, int n) {
    return from_bits(shl<16>(I::widen(&p->bits, n)));
  }
  static SUFFUSE_INLINE Vec load(const float16* p) { return load(p, N); }
  static SUFFUSE_INLINE Vec load(const float16* p, int n) {
    return widen_half(I::widen(&p->bits, n));
  }
  static SUFFUSE_INLINE Vec from_bits(I i) { return Vec(reinterpret_cast<Raw>(i.v)); }

  friend SUFFUSE_INLINE void store(T* p, Vec x) { __builtin_memcpy(p, &x.v, sizeof(Raw)); }
  friend SUFFUSE_INLINE void store(T* p, Vec x, int n) { __builtin_memcpy(p, &x.v, n * sizeof(T)); }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x) { store(p, x, N); }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x, int n) { round_bf16(x).narrow(&p->bits, n); }
  friend SUFFUSE_INLINE void store(float16* p, Vec x) { store(p, x, N); }
  friend SUFFUSE_INLINE void store(float16* p, Vec x, int n) { round_half(x).narrow(&p->bits, n); }
  template <class S>
  friend SUFFUSE_INLINE void stream(S* p, Vec x) {
    store(p, x);
  }

  friend SUFFUSE_INLINE Vec operator+(Vec a, Vec b) { return Vec(a.v + b.v); }
  friend SUFFUSE_INLINE Vec operator-(Vec a, Vec b) { return Vec(a.v - b.v); }
  friend SUFFUSE_INLINE Vec operator*(Vec a, Vec b) { return Vec(a.v * b.v); }
  friend SUFFUSE_INLINE Vec operator/(Vec a, Vec b) { return Vec(a.v / b.v); }
  friend SUFFUSE_INLINE Vec operator-(Vec a) { return Vec(-a.v); }
  friend SUFFUSE_INLINE Vec& operator+=(Vec& a, Vec b) { return a = a + b; }
  friend SUFFUSE_INLINE Vec& operator-=(Vec& a, Vec b) { return a = a - b; }
  friend SUFFUSE_INLINE Vec& operator*=(Vec& a, Vec b) { return a = a * b; }

  friend SUFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return Vec(fma_lanes<T>(a.v, b.v, c.v)); }
  friend SUFFUSE_INLINE Vec fms(Vec a, Vec b, Vec c) { return fma(a, b, -c); }
  friend SUFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) { return fma(-a, b, c); }
  friend SUFFUSE_INLINE Vec muladd(Vec a, Vec b, Vec c) {
#if SUFFUSE_FAST_FMA
    return fma(a, b, c);
#else
    return a * b + c;
#endif
  }
  friend SUFFUSE_INLINE Vec min(Vec a, Vec b) { return select(a < b, a, b); }
  friend SUFFUSE_INLINE Vec max(Vec a, Vec b) { return select(a > b, a, b); }
  friend SUFFUSE_INLINE Vec abs(Vec a) { return from_bits(bits(a) & ~sign_bit()); }
  friend SUFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return from_bits((bits(magnitude) & ~sign_bit()) | (bits(sign) & sign_bit()));
  }
  friend SUFFUSE_INLINE Vec sqrt(Vec a) {
    Vec r;
    for (int i = 0; i < N; ++i) r.v[i] = lane_sqrt(a.v[i]);
    return r;
  }
  friend SUFFUSE_INLINE Vec round(Vec a) {
    const Vec magic(sizeof(T) == 4 ? T(0x1p23) : T(0x1p52));  // from here on every number is whole
    const Vec m = abs(a);
    return copysign(select(m < magic, (m + magic) - magic, a), a);
  }

  friend SUFFUSE_INLINE M operator<(Vec a, Vec b) { return M(a.v < b.v); }
  friend SUFFUSE_INLINE M operator<=(Vec a, Vec b) { return M(a.v <= b.v); }
  friend SUFFUSE_INLINE M operator>(Vec a, Vec b) { return M(a.v > b.v); }
  friend SUFFUSE_INLINE M operator>=(Vec a, Vec b) { return M(a.v >= b.v); }
  friend SUFFUSE_INLINE M operator==(Vec a, Vec b) { return M(a.v == b.v); }
  friend SUFFUSE_INLINE M is_nan(Vec a) { return M(a.v != a.v); }
  friend SUFFUSE_INLINE Vec select(M m, Vec a, Vec b) {
    return from_bits(select(m, bits(a), bits(b)));
  }

  friend SUFFUSE_INLINE I bits(Vec a) { return I(reinterpret_cast<RawInt>(a.v)); }
  friend SUFFUSE_INLINE I to_int(Vec a) { return I(__builtin_convertvector(round(a).v, RawInt)); }

  friend SUFFUSE_INLINE Vec scale2(Vec x, Vec n) {
    // The factor that can end below or above the range comes last, so that only it rounds.
    const Vec last = max(min(n, Vec(T(kMaxExponent))), Vec(T(1 - kMaxExponent)));
    n = n - last;
    const Vec middle = max(min(n, Vec(T(kMaxExponent))), Vec(T(1 - kMaxExponent)));
    n = n - middle;
    const Vec start = max(min(n, Vec(T(kMaxExponent))), Vec(T(1 - kMaxExponent)));
    return x * power2(start) * power2(middle) * power2(last);
  }
  friend SUFFUSE_INLINE Vec scale2_near_one(Vec x, Vec n) {
    const I whole = to_int(n), half = sar<1>(whole);
    return x * power2(half) * power2(whole - half);
  }

  friend SUFFUSE_INLINE T reduce_add(Vec x) {
    for (int w = N / 2; w > 0; w /= 2)
      for (int i = 0; i < w; ++i) x.v[i] = x.v[i] + x.v[i + w];
    return x.v[0];
  }
  friend SUFFUSE_INLINE T reduce_max(Vec x) {
    T r = x.v[0];
    for (int i = 1; i < N; ++i) r = r > x.v[i] ? r : x.v[i];
    return r;
  }
  friend SUFFUSE_INLINE T reduce_min(Vec x) {
    T r = x.v[0];
    for (int i = 1; i < N; ++i) r = r < x.v[i] ? r : x.v[i];
    return r;
  }
  friend SUFFUSE_INLINE void transpose(Vec (&r)[N]) {
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < i; ++j) {
        const T t = r[i].v[j];
        r[i].v[j] = r[j].v[i];
        r[j].v[i] = t;
      }
  }

  friend SUFFUSE_INLINE Vec dot_bf16(Vec acc, I a, I b) {
    const I high(static_cast<int32_t>(0xffff0000));
    acc = fma(from_bits(a & high), from_bits(b & high), acc);
    return fma(from_bits(shl<16>(a)), from_bits(shl<16>(b)), acc);
  }
  friend SUFFUSE_INLINE I pack_bf16(Vec lo, Vec hi) {
    return round_bf16(lo) | shl<16>(round_bf16(hi));
  }

 private:
  static constexpr int kMantissa = sizeof(T) == 4 ? 23 : 52;
  static constexpr int kMaxExponent = sizeof(T) == 4 ? 127 : 1023;

  static SUFFUSE_INLINE Vec load_bytes(const T* p, size_t bytes) {
    Vec r(T(0));
    __builtin_memcpy(&r.v, p, bytes);
    return r;
  }
  static SUFFUSE_INLINE I sign_bit() { return bits(Vec(T(-0.0))); }
  static SUFFUSE_INLINE Vec power2(I n) { return from_bits(shl<kMantissa>(n + I(kMaxExponent))); }
  static SUFFUSE_INLINE Vec power2(Vec n) { return power2(to_int(n)); }

  // Half precision is float with 13 fewer digits and an exponent that starts 112 later.
  static SUFFUSE_INLINE Vec widen_half(I h) {
    const I sign = shl<16>(h & I(0x8000)), rest = shl<13>(h & I(0x7fff));
    const Vec finite = from_bits(rest) * Vec(0x1p112f);
    const I special = I(0x7f800000) | rest;  // inf and NaN
    return from_bits(select(finite >= Vec(65536.f), special, bits(finite)) | sign);
  }
  static SUFFUSE_INLINE I round_half(Vec x) {
    const I word = bits(x), rest = word & I(0x7fffffff);
    const Vec m = abs(x);
    const I normal = shr<13>(rest + I(0xfff) + (shr<13>(rest) & I(1)) - I(112 << 23));
    const I subnormal =
        bits(m + Vec(0.5f)) - I(0x3f000000);  // 0.5 has the spacing of subnormal halves
    const I nan = I(0x7e00) | (shr<13>(rest) & I(0x3ff));
    I r = select(m < Vec(0x1p-14f), subnormal, normal);
    r = select(m >= Vec(65520.f), I(0x7c00), r);
    r = select(is_nan(x), nan, r);
    return r | (shr<16>(word) & I(0x8000));
  }
  static SUFFUSE_INLINE I round_bf16(Vec x) {
    const I word = bits(x);
    const I rounded = shr<16>(word + I(0x7fff) + (shr<16>(word) & I(1)));
    return select(is_nan(x), shr<16>(word) | I(0x40), rounded);
  }
};

template <class T>
struct Mask<Vec<T>> {
  using V = Vec<T>;
  using Raw = typename Lanes<T>::RawInt;
  Raw m;  // lanes of 0 or -1

  Mask() = default;
  SUFFUSE_INLINE explicit Mask(Raw raw) : m(raw) {}
  static SUFFUSE_INLINE Mask first(int n) {
    Mask r;
    for (int i = 0; i < V::N; ++i) r.m[i] = i < n ? -1 : 0;
    return r;
  }
  friend SUFFUSE_INLINE Mask operator&(Mask a, Mask b) { return Mask(a.m & b.m); }
  friend SUFFUSE_INLINE Mask operator|(Mask a, Mask b) { return Mask(a.m | b.m); }
  friend SUFFUSE_INLINE Mask operator~(Mask a) { return Mask(~a.m); }
  friend SUFFUSE_INLINE bool any(Mask a) { return any_bit(a.m); }
  friend SUFFUSE_INLINE bool all(Mask a) { return !any(~a); }
};

template <class T>
struct Int<Vec<T>> {
  using V = Vec<T>;
  using Word = typename Lanes<T>::Signed;
  using Raw = typename Lanes<T>::RawInt;
  using RawUnsigned = typename Lanes<T>::RawUnsigned;
  Raw v;

  Int() = default;
  SUFFUSE_INLINE explicit Int(Word x) : v(x - Raw{}) {}
  SUFFUSE_INLINE explicit Int(Raw raw) : v(raw) {}
  SUFFUSE_INLINE explicit Int(RawUnsigned raw) : v(reinterpret_cast<Raw>(raw)) {}

  static SUFFUSE_INLINE Int load(const Word* p) { return load(p, V::N); }
  static SUFFUSE_INLINE Int load(const Word* p, int n) {
    Int r(Word(0));
    __builtin_memcpy(&r.v, p, n * sizeof(Word));
    return r;
  }
  static SUFFUSE_INLINE Int widen(const uint16_t* p, int n) {
    Int r(Word(0));
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  SUFFUSE_INLINE void narrow(uint16_t* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = static_cast<uint16_t>(v[i]);
  }
  friend SUFFUSE_INLINE void store_int(Word* p, Int a) { store_int(p, a, V::N); }
  friend SUFFUSE_INLINE void store_int(Word* p, Int a, int n) {
    __builtin_memcpy(p, &a.v, n * sizeof(Word));
  }

  SUFFUSE_INLINE RawUnsigned u() const { return reinterpret_cast<RawUnsigned>(v); }
  friend SUFFUSE_INLINE Int operator+(Int a, Int b) { return Int(a.u() + b.u()); }
  friend SUFFUSE_INLINE Int operator-(Int a, Int b) { return Int(a.u() - b.u()); }
  friend SUFFUSE_INLINE Int operator&(Int a, Int b) { return Int(a.v & b.v); }
  friend SUFFUSE_INLINE Int operator|(Int a, Int b) { return Int(a.v | b.v); }
  friend SUFFUSE_INLINE Int operator^(Int a, Int b) { return Int(a.v ^ b.v); }
  friend SUFFUSE_INLINE Int operator~(Int a) { return Int(~a.v); }
  friend SUFFUSE_INLINE Int select(Mask<V> m, Int a, Int b) {
    return Int((m.m & a.v) | (~m.m & b.v));
  }
  friend SUFFUSE_INLINE Mask<V> nonzero(Int a) { return Mask<V>(a.v != 0); }
  friend SUFFUSE_INLINE V to_float(Int a) {
    return V(__builtin_convertvector(a.v, typename V::Raw));
  }
};

template <int k, class V>
SUFFUSE_INLINE Int<V> shl(Int<V> a) {
  return Int<V>(a.u() << k);
}
template <int k, class V>
SUFFUSE_INLINE Int<V> shr(Int<V> a) {
  return Int<V>(a.u() >> k);
}
template <int k, class V>
SUFFUSE_INLINE Int<V> sar(Int<V> a) {
  return Int<V>(a.v >> k);
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
