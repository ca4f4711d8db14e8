// Vec<float>, its Mask and Int in AVX2 with FMA and F16C. The words: vec.h.
#pragma once

#include "simd/intrinsics.h"
#include "simd/vec_lanes.h"

namespace suffuse {
namespace SUFFUSE_ISA {

template <>
struct Vec<float>;

SUFFUSE_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

template <>
struct Mask<Vec<float>> {
  __m256 m;  // lanes of all ones or all zeros

  Mask() = default;
  SUFFUSE_INLINE explicit Mask(__m256 raw) : m(raw) {}
  static SUFFUSE_INLINE Mask first(int n) { return Mask(_mm256_castsi256_ps(first_lanes(n))); }
  friend SUFFUSE_INLINE Mask operator&(Mask a, Mask b) { return Mask(_mm256_and_ps(a.m, b.m)); }
  friend SUFFUSE_INLINE Mask operator|(Mask a, Mask b) { return Mask(_mm256_or_ps(a.m, b.m)); }
  friend SUFFUSE_INLINE Mask operator~(Mask a) {
    return Mask(_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1))));
  }
  friend SUFFUSE_INLINE bool any(Mask a) { return _mm256_movemask_ps(a.m) != 0; }
  friend SUFFUSE_INLINE bool all(Mask a) { return _mm256_movemask_ps(a.m) == 0xff; }
};

template <>
struct Int<Vec<float>> {
  using V = Vec<float>;
  __m256i v;

  Int() = default;
  SUFFUSE_INLINE explicit Int(int32_t x) : v(_mm256_set1_epi32(x)) {}
  SUFFUSE_INLINE explicit Int(__m256i raw) : v(raw) {}

  static SUFFUSE_INLINE Int load(const int32_t* p) {
    return Int(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static SUFFUSE_INLINE Int load(const int32_t* p, int n) {
    return Int(_mm256_maskload_epi32(p, first_lanes(n)));
  }
  friend SUFFUSE_INLINE void store_int(int32_t* p, Int a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
  }
  friend SUFFUSE_INLINE void store_int(int32_t* p, Int a, int n) {
    _mm256_maskstore_epi32(p, first_lanes(n), a.v);
  }

  friend SUFFUSE_INLINE Int operator+(Int a, Int b) { return Int(_mm256_add_epi32(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator-(Int a, Int b) { return Int(_mm256_sub_epi32(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator&(Int a, Int b) { return Int(_mm256_and_si256(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator|(Int a, Int b) { return Int(_mm256_or_si256(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator^(Int a, Int b) { return Int(_mm256_xor_si256(a.v, b.v)); }
  friend SUFFUSE_INLINE Int operator~(Int a) { return a ^ Int(-1); }
  friend SUFFUSE_INLINE Int select(Mask<V> m, Int a, Int b) {
    return Int(_mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.m)));
  }
  friend SUFFUSE_INLINE Mask<V> nonzero(Int a) {
    return ~Mask<V>(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, _mm256_setzero_si256())));
  }
};

template <int k>
SUFFUSE_INLINE Int<Vec<float>> shl(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm256_slli_epi32(a.v, k));
}
template <int k>
SUFFUSE_INLINE Int<Vec<float>> shr(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm256_srli_epi32(a.v, k));
}
template <int k>
SUFFUSE_INLINE Int<Vec<float>> sar(Int<Vec<float>> a) {
  return Int<Vec<float>>(_mm256_srai_epi32(a.v, k));
}

// The rounded bfloat16 in the low half of each word.
SUFFUSE_INLINE Int<Vec<float>> round_bf16(__m256 x) {
  using I = Int<Vec<float>>;
  const I word(_mm256_castps_si256(x)), high = shr<16>(word);
  const I rounded = shr<16>(word + I(0x7fff) + (high & I(1)));
  return select(Mask<Vec<float>>(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)), high | I(0x40), rounded);
}

template <>
struct Vec<float> {
  static constexpr int N = 8;
  using M = Mask<Vec>;
  using I = Int<Vec>;
  __m256 v;

  Vec() = default;
  SUFFUSE_INLINE Vec(float x) : v(_mm256_set1_ps(x)) {}
  SUFFUSE_INLINE explicit Vec(__m256 raw) : v(raw) {}

  static SUFFUSE_INLINE Vec load(const float* p) { return Vec(_mm256_loadu_ps(p)); }
  static SUFFUSE_INLINE Vec load(const float* p, int n) {
    return Vec(_mm256_maskload_ps(p, first_lanes(n)));
  }
  static SUFFUSE_INLINE Vec load(const bfloat16* p) { return widen_bf16(load_words(p)); }
  static SUFFUSE_INLINE Vec load(const bfloat16* p, int n) { return widen_bf16(load_words(p, n)); }
  static SUFFUSE_INLINE Vec load(const float16* p) { return Vec(_mm256_cvtph_ps(load_words(p))); }
  static SUFFUSE_INLINE Vec load(const float16* p, int n) {
    return Vec(_mm256_cvtph_ps(load_words(p, n)));
  }
  static SUFFUSE_INLINE Vec from_bits(I i) { return Vec(_mm256_castsi256_ps(i.v)); }

  friend SUFFUSE_INLINE void store(float* p, Vec x) { _mm256_storeu_ps(p, x.v); }
  friend SUFFUSE_INLINE void store(float* p, Vec x, int n) {
    _mm256_maskstore_ps(p, first_lanes(n), x.v);
  }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x) { store_words(p, narrow_bf16(x)); }
  friend SUFFUSE_INLINE void store(bfloat16* p, Vec x, int n) { store_words(p, narrow_bf16(x), n); }
  friend SUFFUSE_INLINE void store(float16* p, Vec x) { store_words(p, narrow_half(x)); }
  friend SUFFUSE_INLINE void store(float16* p, Vec x, int n) { store_words(p, narrow_half(x), n); }
  friend SUFFUSE_INLINE void stream(float* p, Vec x) { _mm256_stream_ps(p, x.v); }
  friend SUFFUSE_INLINE void stream(bfloat16* p, Vec x) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(x));
  }
  friend SUFFUSE_INLINE void stream(float16* p, Vec x) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrow_half(x));
  }

  friend SUFFUSE_INLINE Vec operator+(Vec a, Vec b) { return Vec(_mm256_add_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator-(Vec a, Vec b) { return Vec(_mm256_sub_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator*(Vec a, Vec b) { return Vec(_mm256_mul_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator/(Vec a, Vec b) { return Vec(_mm256_div_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec operator-(Vec a) {
    return Vec(_mm256_xor_ps(a.v, _mm256_set1_ps(-0.f)));
  }
  friend SUFFUSE_INLINE Vec& operator+=(Vec& a, Vec b) { return a = a + b; }
  friend SUFFUSE_INLINE Vec& operator-=(Vec& a, Vec b) { return a = a - b; }
  friend SUFFUSE_INLINE Vec& operator*=(Vec& a, Vec b) { return a = a * b; }

  friend SUFFUSE_INLINE Vec fma(Vec a, Vec b, Vec c) { return Vec(_mm256_fmadd_ps(a.v, b.v, c.v)); }
  friend SUFFUSE_INLINE Vec fms(Vec a, Vec b, Vec c) { return Vec(_mm256_fmsub_ps(a.v, b.v, c.v)); }
  friend SUFFUSE_INLINE Vec fnma(Vec a, Vec b, Vec c) {
    return Vec(_mm256_fnmadd_ps(a.v, b.v, c.v));
  }
  friend SUFFUSE_INLINE Vec muladd(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  friend SUFFUSE_INLINE Vec min(Vec a, Vec b) { return Vec(_mm256_min_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec max(Vec a, Vec b) { return Vec(_mm256_max_ps(a.v, b.v)); }
  friend SUFFUSE_INLINE Vec abs(Vec a) { return Vec(_mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v)); }
  friend SUFFUSE_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return Vec(_mm256_or_ps(abs(magnitude).v, _mm256_and_ps(_mm256_set1_ps(-0.f), sign.v)));
  }
  friend SUFFUSE_INLINE Vec sqrt(Vec a) { return Vec(_mm256_sqrt_ps(a.v)); }
  friend SUFFUSE_INLINE Vec round(Vec a) {
    return Vec(_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  friend SUFFUSE_INLINE M operator<(Vec a, Vec b) { return compare<_CMP_LT_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator<=(Vec a, Vec b) { return compare<_CMP_LE_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator>(Vec a, Vec b) { return compare<_CMP_GT_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator>=(Vec a, Vec b) { return compare<_CMP_GE_OQ>(a, b); }
  friend SUFFUSE_INLINE M operator==(Vec a, Vec b) { return compare<_CMP_EQ_OQ>(a, b); }
  friend SUFFUSE_INLINE M is_nan(Vec a) { return compare<_CMP_UNORD_Q>(a, a); }
  friend SUFFUSE_INLINE Vec select(M m, Vec a, Vec b) {
    return Vec(_mm256_blendv_ps(b.v, a.v, m.m));
  }

  friend SUFFUSE_INLINE I bits(Vec a) { return I(_mm256_castps_si256(a.v)); }
  friend SUFFUSE_INLINE I to_int(Vec a) { return I(_mm256_cvtps_epi32(a.v)); }
  friend SUFFUSE_INLINE Vec to_float(I a) { return Vec(_mm256_cvtepi32_ps(a.v)); }

  friend SUFFUSE_INLINE Vec scale2(Vec x, Vec n) {
    // The factor that can end below or above the range comes last, so that only it rounds.
    const Vec last = exponent(n), middle = exponent(n - last), start = exponent(n - last - middle);
    return x * power2(to_int(start)) * power2(to_int(middle)) * power2(to_int(last));
  }
  friend SUFFUSE_INLINE Vec scale2_near_one(Vec x, Vec n) {
    const I whole = to_int(n), half = sar<1>(whole);
    return x * power2(half) * power2(whole - half);
  }

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
    __m256 a[N], b[N];
    for (int i = 0; i < N; i += 2) {  // pairs of rows: words interleaved
      a[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
      a[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
    }
    for (int i = 0; i < N; i += 4)  // b[4 g + c], half h: column 4 h + c of the rows 4 g ...
      for (int j = 0; j < 2; ++j) {
        b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
        b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
      }
    for (int c = 0; c < 4; ++c) {
      r[c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
      r[4 + c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
    }
  }

  friend SUFFUSE_INLINE Vec dot_bf16(Vec acc, I a, I b) {
    const I high(static_cast<int32_t>(0xffff0000));
    acc = fma(from_bits(a & high), from_bits(b & high), acc);
    return fma(from_bits(shl<16>(a)), from_bits(shl<16>(b)), acc);
  }
  friend SUFFUSE_INLINE I pack_bf16(Vec lo, Vec hi) {
    return round_bf16(lo.v) | shl<16>(round_bf16(hi.v));
  }

 private:
  static SUFFUSE_INLINE __m128i load_words(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  static SUFFUSE_INLINE __m128i load_words(const void* p, int n) {
    __m128i words = _mm_setzero_si128();
    __builtin_memcpy(&words, p, n * sizeof(uint16_t));
    return words;
  }
  static SUFFUSE_INLINE void store_words(void* p, __m128i words) {
    _mm_storeu_si128(static_cast<__m128i*>(p), words);
  }
  static SUFFUSE_INLINE void store_words(void* p, __m128i words, int n) {
    __builtin_memcpy(p, &words, n * sizeof(uint16_t));
  }
  static SUFFUSE_INLINE Vec widen_bf16(__m128i words) {
    return from_bits(shl<16>(I(_mm256_cvtepu16_epi32(words))));
  }
  static SUFFUSE_INLINE __m128i narrow_bf16(Vec x) {
    const __m256i words = round_bf16(x.v).v;
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  }
  static SUFFUSE_INLINE __m128i narrow_half(Vec x) {
    return _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  template <int predicate>
  static SUFFUSE_INLINE M compare(Vec a, Vec b) {
    return M(_mm256_cmp_ps(a.v, b.v, predicate));
  }
  static SUFFUSE_INLINE Vec exponent(Vec n) { return max(min(n, Vec(127.f)), Vec(-126.f)); }
  static SUFFUSE_INLINE Vec power2(I n) { return from_bits(shl<23>(n + I(127))); }
  template <class Op>  // op takes and gives machine vectors of 4 or 1 floats
  static SUFFUSE_INLINE float reduce(Vec x, Op op) {
    const __m128 w4 = op(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    const __m128 w2 = op(w4, _mm_movehl_ps(w4, w4));
    return op(w2[0], w2[1]);
  }
};

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
