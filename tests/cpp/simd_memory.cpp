// Loads and stores of simd/vec.h: partial ones at the edge of a page, every bfloat16 and float16,
// rounding, pairs of bfloat16. Compiled once per ISA.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "check.h"
#include "simd/vec.h"

using namespace suffuse::SUFFUSE_ISA;
using check::equal;
using suffuse::bfloat16;
using suffuse::float16;
using F = Vec<float>;

namespace {

// The address where readable memory ends: touching it kills the program.
unsigned char* page_end() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* p = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  unsigned char* middle = static_cast<unsigned char*>(p) + page;
  if (mprotect(middle, page, PROT_NONE) != 0) std::abort();
  return middle;
}

// Small whole numbers are exact in every type.
float value(float x) { return x; }
double value(double x) { return x; }
int32_t value(int32_t x) { return x; }
uint32_t value(uint32_t x) { return x; }
float value(bfloat16 x) { return check::bit_cast<float>(uint32_t{x.bits} << 16); }
float value(float16 x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float sign = x.bits >> 15 ? -1.f : 1.f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return exponent ? sign * std::ldexp(1.f + fraction / 1024.f, exponent - 15)
                  : sign * std::ldexp(fraction / 1024.f, -14);
}

template <int lanes, class S, class Load, class Store>
void test_partial(const char* what, unsigned char* end, Load load, Store store) {
  for (int n = 0; n <= lanes; ++n) {
    S* p = reinterpret_cast<S*>(end) - n;
    std::memset(static_cast<void*>(end - 8 * 64), 0xff, 8 * 64);
    store(p, n);  // writes 1, 2, ... to the first n
    for (int i = 0; i < n; ++i) equal(what, value(p[i]), decltype(value(*p))(i + 1), n, i);
    unsigned char before;
    std::memcpy(&before, reinterpret_cast<unsigned char*>(p) - 1, 1);
    equal(what, int{before}, 0xff, n);
    S out[lanes];
    load(p, n, out);
    for (int i = 0; i < lanes; ++i)
      equal(what, value(out[i]), decltype(value(*p))(i < n ? i + 1 : 0), n, i);
  }
  // In the middle of memory the elements after the first n keep their bits.
  unsigned char* const middle = end - 8 * 64;
  for (int n = 0; n <= lanes; ++n) {
    std::memset(middle, 0x5a, 8 * 64);
    store(reinterpret_cast<S*>(middle), n);
    for (size_t i = n * sizeof(S); i < lanes * sizeof(S); ++i)
      equal(what, int{middle[i]}, 0x5a, n, static_cast<int>(i));
  }
}

template <class V, class T, class S>
void test_partial_of(const char* what, unsigned char* end) {
  T count[V::N];
  for (int i = 0; i < V::N; ++i) count[i] = T(i + 1);
  const V ramp = load<V>(count);
  test_partial<V::N, S>(
      what, end, [](const S* p, int n, S* out) { store(out, load<V>(p, n)); },
      [&](S* p, int n) { store(p, ramp, n); });
}

template <class I>
void test_partial_int(const char* what, unsigned char* end) {
  I count[F::N];
  for (int i = 0; i < F::N; ++i) count[i] = i + 1;
  const Int<F> ramp = load_int<F>(count);
  test_partial<F::N, I>(
      what, end, [](const I* p, int n, I* out) { store_int(out, load_int<F>(p, n)); },
      [&](I* p, int n) { store_int(p, ramp, n); });
}

template <class V, class T, class S>
void test_stream(const char* what) {
  alignas(64) S out[V::N], expected[V::N];
  T in[V::N];
  for (int i = 0; i < V::N; ++i) in[i] = T(i) + T(0.3);
  stream(out, load<V>(in));
  stream_fence();
  store(expected, load<V>(in));
  for (int i = 0; i < V::N; ++i) equal(what, value(out[i]), value(expected[i]), i);
}

template <class S>
S with_bits(uint32_t bits) {
  return S{static_cast<uint16_t>(bits)};
}

template <class S>
void test_widening(const char* what) {
  for (uint32_t bits = 0; bits < 65536; bits += F::N) {
    S in[F::N];
    float out[F::N];
    for (int i = 0; i < F::N; ++i) in[i] = with_bits<S>(bits + i);
    store(out, load<F>(in));
    for (int i = 0; i < F::N; ++i) equal(what, out[i], value(in[i]), int{in[i].bits});
  }
}

// x rounded to S by search: the two neighbours of the same sign, the nearer, the even one in the
// middle.
template <class S>
S nearest(float x, uint32_t infinity) {
  const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  const double m = std::fabs(static_cast<double>(x));
  const auto magnitude =
      [&](uint32_t bits) {  // infinity counts as the next number after the largest
        const double below = value(with_bits<S>(infinity - 1)),
                     step = value(with_bits<S>(infinity - 2));
        return bits == infinity ? below + (below - step) : double{value(with_bits<S>(bits))};
      };
  uint32_t low = 0, high = infinity;
  if (m >= magnitude(infinity)) return with_bits<S>(infinity | sign);
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (magnitude(middle) <= m ? low : high) = middle;
  }
  const double under = m - magnitude(low), over = magnitude(high) - m;
  const bool up = over < under || (over == under && low % 2 != 0);
  return with_bits<S>((up ? high : low) | sign);
}

template <class S>
void test_narrowing(const char* what, uint32_t infinity) {
  std::vector<float> in = check::edges<float>();
  for (int i = 0; i < 100000; ++i) in.push_back(check::random_bits<float>());
  for (uint32_t bits = 0; bits < infinity;
       bits += 3) {  // the number, the middle to the next, just beside it
    const float x = value(with_bits<S>(bits)), next = value(with_bits<S>(bits + 1));
    const float middle = bits + 1 == infinity ? x * (1 + 0x1p-12f) : x + (next - x) / 2;
    for (float y : {x, middle, std::nextafter(middle, INFINITY), std::nextafter(middle, 0.f)}) {
      in.push_back(y);
      in.push_back(-y);
    }
  }
  for (float x : {65504.f, 65519.996f, 65520.f, 65535.f, 3.3895314e38f, 3.3961775e38f, 3.4e38f})
    in.push_back(x);
  while (in.size() % F::N != 0) in.push_back(0);
  for (size_t i = 0; i < in.size(); i += F::N) {
    S out[F::N], partial[F::N] = {};
    store(out, load<F>(&in[i]));
    store(partial, load<F>(&in[i]), F::N - 1);
    for (int j = 0; j < F::N; ++j) {
      const float x = in[i + j];
      if (std::isnan(x)) {
        equal(what, std::isnan(value(out[j])), true, x);
      } else {
        equal(what, int{out[j].bits}, int{nearest<S>(x, infinity).bits}, x);
      }
      if (j < F::N - 1) equal(what, int{partial[j].bits}, int{out[j].bits}, x);
    }
  }
}

// Numbers whose products and sums stay normal: subnormals are where AVX512-BF16 differs.
void test_pairs() {
  for (int round = 0; round < 20000; ++round) {
    float number[4][F::N], acc[F::N], got[F::N], packed[F::N];
    bfloat16 half[4][F::N];
    for (auto& row : number)
      for (float& x : row)
        x = std::ldexp(static_cast<float>(static_cast<int32_t>(check::random_word())), -30);
    for (int k = 0; k < 4; ++k) store(half[k], load<F>(number[k]));
    for (float& x : acc) x = static_cast<float>(static_cast<int16_t>(check::random_word()));
    const Int<F> a = pack_bf16(load<F>(number[0]), load<F>(number[1]));
    const Int<F> b = pack_bf16(load<F>(number[2]), load<F>(number[3]));
    store(packed, from_bits<F>(a));
    store(got, dot_bf16(load<F>(acc), a, b));
    for (int i = 0; i < F::N; ++i) {
      const uint32_t word = uint32_t{half[1][i].bits} << 16 | half[0][i].bits;
      equal("pack_bf16", check::bit_cast<uint32_t>(packed[i]), word, i);
      const float high = std::fma(value(half[1][i]), value(half[3][i]), acc[i]);
      equal("dot_bf16", got[i], std::fma(value(half[0][i]), value(half[2][i]), high), acc[i]);
    }
  }
  float special[F::N];
  for (int i = 0; i < F::N; ++i) special[i] = i % 4 == 0 ? NAN : i % 4 == 1 ? INFINITY : i;
  store(special, from_bits<F>(pack_bf16(zero<F>(), load<F>(special))));
  for (int i = 0; i < 2; ++i)
    equal("pack_bf16 of NaN and inf", std::isnan(special[i]), i == 0, special[i]);
}

#if defined(__AVX512F__)
void test_lookup() {
  float table[32], got[F::N];
  int32_t index[F::N];
  for (int i = 0; i < 32; ++i) table[i] = 10.f * i;
  for (int shift = 0; shift < 64; ++shift) {
    for (int i = 0; i < F::N; ++i) index[i] = 7 * i - shift;
    store(got, lookup32(table, load_int<F>(index)));
    for (int i = 0; i < F::N; ++i) equal("lookup32", got[i], table[index[i] & 31], index[i]);
  }
}
#else
void test_lookup() {}
#endif

}  // namespace

int main() {
  unsigned char* const end = page_end();
  test_partial_of<F, float, float>("float", end);
  test_partial_of<F, float, bfloat16>("bfloat16", end);
  test_partial_of<F, float, float16>("float16", end);
  test_partial_of<Vec<double>, double, double>("double", end);
  test_partial_int<int32_t>("int32", end);
  test_partial_int<uint32_t>("uint32", end);
  test_stream<F, float, float>("stream float");
  test_stream<F, float, bfloat16>("stream bfloat16");
  test_stream<F, float, float16>("stream float16");
  test_stream<Vec<double>, double, double>("stream double");
  test_widening<bfloat16>("load bfloat16");
  test_widening<float16>("load float16");
  test_narrowing<bfloat16>("store bfloat16", 0x7f80);
  test_narrowing<float16>("store float16", 0x7c00);
  test_pairs();
  test_lookup();
  return check::result("simd_memory");
}
