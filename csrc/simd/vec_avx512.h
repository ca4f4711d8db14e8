// Vec<float>, its Mask and Int in AVX-512 (F, BW, DQ, VL; BF16 where the flags say so). The words:
// vec.h.
#pragma once

#include "simd/intrinsics.h"
#include "simd/vec_lanes.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <>
struct Vec<float>;

SUFFUSE_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

template <>
struct Mask<Vec<float>> {
  __mmask16 m;

  Mask() = default;
  SUFFUSE_INLINE explicit Mask(__mmask16 raw) : m(raw) {}
  static SUFFUSE_INLINE Mask first(int n) { return Mask(first_lanes(n)); }
  friend SUFFUSE_INLINE Mask operator&(Mask a, Mask b) { return Mask(_kand_mask16(a.m, b.m)); }
  friend SUFFUSE_INLINE Mask operator|(Mask a, Mask b) { return Mask(_kor_mask16(a.m, b.m)); }
  friend SUFFUSE_INLINE Mask operator~(Mask a) { return Mask(_knot_mask16(a.m)); }
  friend SUFFUSE_INLINE bool any(Mask a) { return a.m != 0; }
  friend SUFFUSE_INLINE bool all(Mask a) { return a.m == 0xffff; }
};

template <>
struct Int<Vec<float>> {
  using V = Vec<float>;
  __m512i v;

  Int() = default;
  SUFFUSE_INLINE explicit Int(int32_t x) : v(_mm512_set1_epi32(x)) {}
  SUFFUSE_INLINE explicit Int(__m512i raw) : v(raw) {}

  static SUFFUSE_INLINE Int load(const int32_t* p) { return Int(_mm512_loadu_si512(p)); }
  static SUFFUSE_INLINE Int load(const int32_t* p, int n) {
    return Int(_mm512_maskz_loadu_epi32(first_lanes(n), p));
  }
  friend SUFFUSE_INLINE void store_int(int32_t* p, Int a) { _mm512_storeu_si512(p, a.v); }
  friend SUFFUSE_INLINE void store_int(int32_t* p, Int a, int n) {
    _mm512_mask_storeu_epi32(p, first_lanes(n), a.v);
  }

  friend SUFFUSE_INLINE Int operator+(Int a, Int b) { return Int(_mm512_add_epi32(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator-(Int a, Int b) { return Int(_mm512_sub_epi32(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator&(Int a, Int b) { return Int(_mm512_and_si512(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator|(Int a, Int b) { return Int(_mm512_or_si512(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator^(Int a, Int b) { return Int(_mm512_xor_si512(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator~(Int a) { return a ^ Int(-1); }
  friend SUFFUSE_INLINE Int select(Mask<V> m, Int a, Int b) {
    return Int(_mm512_mask_mov_epi32(b.v, m.m, a.v));
  }
  friend SUFFUSE_INLINE Mask<V> nonzero(Int a) { return Mask<V>(_mm512_test_epi32_mask(a.v, a.v)); }
};

template <int k>
SUFFUSE_INLINE Int<Vec<float>> shl(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm512_slli_epi32(a.v, k));
}
template <int k>
SUFFUSE_INLINE Int<Vec<float>> shr(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm512_srli_epi32(a.v, k));
}
template <int k>
SUFFUSE_INLINE Int<Vec<float>> sar(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm512_srai_epi32(a.v, k));
}

// The rounded bfloat16 in the low half of each word. vcvtneps2bf16 would flush subnormals; these
// are the bits that every ISA gives.
SUFFUSE_INLINE __m512i round_bf16(__m512 x) {
  const __m512i word = _mm512_castps_si512(x), high = _mm512_srli_epi32(word, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(word, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(_mm512_srli_epi32(sum, 16), nan, high, _mm512_set1_epi32(0x40));
}
SUFFUSE_INLINE __m256i round_half(__m512 x) {
  return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

template <>
struct Vec<float> {
  static constexpr int N = 16;
  using M = Mask<Vec>;
  using I = Int<Vec>;
  __m512 v;

  Vec() = default;
  SUFFUSE_INLINE Vec(float x) : v(_mm512_set1_ps(x)) {}
  SUFFUSE_INLINE explicit Vec(__m512 raw) : v(raw) {}

  static SUFFUSE_INLINE Vec load(const float* p) { return Vec(_mm512_loadu_ps(p)); }
  static SUFFUSE_INLINE Vec load(const float* p, int n) {
    return Vec(_mm512_maskz_loadu_ps(first_lanes(n), p));
  }
  static SUFFUSE_INLINE Vec load(const bfloat16* p) { return widen_bf16(load_words(p)); }
  static SUFFUSE_INLINE Vec load(const bfloat16* p, int n) {
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  }
  static SUFFUSE_INLINE Vec load(const float16* p) { return Vec(_mm512_cvtph_ps(load_words(p))); }
  static SUFFUSE_INLINE Vec load(const float16* p, int n) {
    return Vec(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p)));
  }
  static SUFFUSE_INLINE Vec from_bits(I i) { return Vec(_mm512_castsi512_ps(i.v)); }

  friend SUFFUSE_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
  friend SUFFUSE_INLINE void store(float* p, Vec x, int n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), x.v);
  }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x) { store_words(p, narrow_bf16(x)); }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), narrow_bf16(x));
  }
  friend SUFFUSE_INLINE void store(float16* p, Vec x) { store_words(p, round_half(x.v)); }
  friend SUFFUSE_INLINE void store(float16* p, Vec x, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), round_half(x.v));
  }
  friend SUFFUSE_INLINE void stream(float* p, Vec x) { _mm512_stream_ps(p, x.v); }
  friend SUFFUSE_INLINE void stream(bfloat16* p, Vec x) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(x));
  }
  friend SUFFUSE_INLINE void stream(float16* p, Vec x) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), round_half(x.v));
  }

  friend SUFFUSE_INLINE Vec operator+(Vec a, Vec b) { return Vec(_mm512_add_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator-(Vec a, Vec b) { return Vec(_mm512_sub_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator*(Vec a, Vec b) { return Vec(_mm512_mul_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator/(Vec a, Vec b) { return Vec(_mm512_div_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator-(Vec a) {
    return Vec(_mm512_xor_ps(a.v, _mm512_set1_ps(-0.f)));
  }
  friend SUFFUSE_INLINE Vec& operator+=(Vec& a, Vec b) { return a = a + b; }
  friend SUFFUSE_INLINE Vec& operator-=(Vec& a, Vec b) { return a = a - b; }
  friend SUFFUSE_INLINE Vec& operator*=(Vec& a, Vec b) { return a = a * b; }

  friend SUFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return Vec(_mm512_fmadd_ps(a.v, b.v, c.v)); }
  friend SUFFUSE_INLINE Vec fms(Vec a, Vec b, Vec c) { return Vec(_mm512_fmsub_ps(a.v, b.v, c.v)); }
  friend SUFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) {
    return Vec(_mm512_fnmadd_ps(a.v, b.v, c.v));
  }
  friend SUFFUSE_INLINE Vec muladd(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  friend SUFFUSE_INLINE Vec min(Vec a, Vec b) { return Vec(_mm512_min_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec max(Vec a, Vec b) { return Vec(_mm512_max_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec abs(Vec a) { return Vec(_mm512_abs_ps(a.v)); }
  friend SUFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return Vec(_mm512_or_ps(abs(magnitude).v, _mm512_and_ps(_mm512_set1_ps(-0.f), sign.v)));
  }
  friend SUFFUSE_INLINE Vec sqrt(Vec a) { return Vec(_mm512_sqrt_ps(a.v)); }
  friend SUFFUSE_INLINE Vec round(Vec a) {
    return Vec(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  friend SUFFUSE_INLINE M operator<(Vec a, Vec b) { return compare<_CMP_LT_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator<=(Vec a, Vec b) { return compare<_CMP_LE_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator>(Vec a, Vec b) { return compare<_CMP_GT_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator>=(Vec a, Vec b) { return compare<_CMP_GE_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator==(Vec a, Vec b) { return compare<_CMP_EQ_OQ>(a, b); }
  friend SUFFUSE_INLINE M is_nan(Vec a) { return compare<_CMP_UNORD_Q>(a, a); }
  friend SUFFUSE_INLINE Vec select(M m, Vec a, Vec b) {
    return Vec(_mm512_mask_mov_ps(b.v, m.m, a.v));
  }

  friend SUFFUSE_INLINE I bits(Vec a) { return I(_mm512_castps_si512(a.v)); }
  friend SUFFUSE_INLINE I to_int(Vec a) { return I(_mm512_cvtps_epi32(a.v)); }
  friend SUFFUSE_INLINE Vec to_float(I a) { return Vec(_mm512_cvtepi32_ps(a.v)); }

  friend SUFFUSE_INLINE Vec scale2(Vec x, Vec n) { return Vec(_mm512_scalef_ps(x.v, n.v)); }
  friend SUFFUSE_INLINE Vec scale2_near_one(Vec x, Vec n) { return scale2(x, n); }

  friend SUFFUSE_INLINE float reduce_add(Vec x) {
    return reduce(x, [](auto a, auto b) { return a + b; });
  }
  friend SUFFUSE_INLINE float reduce_max(Vec x) {
    return reduce(x, [](auto a, auto b) { return a > b ? a : b; });
  }
  friend SUFFUSE_INLINE float reduce_min(Vec x) {
    return reduce(x, [](auto a, auto b) { return a < b ? a : b; });
  }
  friend SUFFUSE_INLINE void transpose(Vec (&r)[N]) {
    __m512 a[N], b[N];
    for (int i = 0; i < N; i += 2) {  // pairs of rows: 32-bit words interleaved
      a[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
      a[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
    }
    for (int i = 0; i < N; i += 4)  // b[4 g + c], quarter q: column 4 q + c of the rows 4 g ...
      for (int j = 0; j < 2; ++j) {
        const __m512d lo = _mm512_castps_pd(a[i + j]), hi = _mm512_castps_pd(a[i + j + 2]);
        b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
        b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
      }
    for (int c = 0; c < 4; ++c) {  // a 4 x 4 transpose of quarters
      const __m512 p = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
      const __m512 q = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
      const __m512 s = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
      const __m512 t = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
      r[c].v = _mm512_shuffle_f32x4(p, q, 0x88);
      r[4 + c].v = _mm512_shuffle_f32x4(s, t, 0x88);
      r[8 + c].v = _mm512_shuffle_f32x4(p, q, 0xdd);
      r[12 + c].v = _mm512_shuffle_f32x4(s, t, 0xdd);
    }
  }

#if defined(__AVX512BF16__)
  friend SUFFUSE_INLINE Vec dot_bf16(Vec acc, I a, I b) {
    return Vec(
        _mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v)));
  }
  friend SUFFUSE_INLINE I pack_bf16(Vec lo, Vec hi) {
    // vcvtne2ps2bf16 puts 16 of lo before 16 of hi; the words want them in pairs.
    const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(hi.v, lo.v));
    const __m512i order = _mm512_add_epi32(
        _mm512_set1_epi32(0x00100000),
        _mm512_mullo_epi32(_mm512_set1_epi32(0x00010001),
                           _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)));
    return I(_mm512_permutexvar_epi16(order, halves));
  }
#else
  friend SUFFUSE_INLINE Vec dot_bf16(Vec acc, I a, I b) {
    const I high(static_cast<int32_t>(0xffff0000));
    acc = fma(from_bits(a & high), from_bits(b & high), acc);
    return fma(from_bits(shl<16>(a)), from_bits(shl<16>(b)), acc);
  }
  friend SUFFUSE_INLINE I pack_bf16(Vec lo, Vec hi) {
    return I(round_bf16(lo.v)) | shl<16>(I(round_bf16(hi.v)));
  }
#endif

 private:
  static SUFFUSE_INLINE __m256i load_words(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static SUFFUSE_INLINE void store_words(void* p, __m256i words) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), words);
  }
  static SUFFUSE_INLINE Vec widen_bf16(__m256i words) {
    return from_bits(I(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)));
  }
  static SUFFUSE_INLINE __m256i narrow_bf16(Vec x) {
    return _mm512_cvtepi32_epi16(round_bf16(x.v));
  }
  template <int predicate>
  static SUFFUSE_INLINE M compare(Vec a, Vec b) {
    return M(_mm512_cmp_ps_mask(a.v, b.v, predicate));
  }
  template <class Op>  // op takes and gives machine vectors of 8, 4 or 1 floats
  static SUFFUSE_INLINE float reduce(Vec x, Op op) {
    const __m256 w8 = op(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    const __m128 w4 = op(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = op(w4, _mm_movehl_ps(w4, w4));
    return op(w2[0], w2[1]);
  }
};

SUFFUSE_INLINE Vec<float> lookup32(const float* table, Int<Vec<float>> i) {
  const __m512 low = _mm512_loadu_ps(table), high = _mm512_loadu_ps(table + 16);
  return Vec<float>(_mm512_permutex2var_ps(low, i.v, high));
}

SUFFUSE_INLINE Vec<float> reciprocal_estimate(Vec<float> x) {
  return Vec<float>(_mm512_rcp14_ps(x.v));
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
