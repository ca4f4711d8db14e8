// Every word of simd/vec.h against scalar arithmetic, on edges and random bits. Compiled once per
// ISA.
#include <type_traits>

#include "check.h"
#include "simd/bytes.h"
#include "simd/pairs.h"
#include "simd/sum_lanes.h"
#include "simd/transposed.h"
#include "simd/vec.h"

using namespace suffuse::SUFFUSE_ISA;
using check::edges;
using check::equal;

namespace {

template <class V>
using Element = std::conditional_t<std::is_same<V, Vec<float>>::value, float, double>;

template <class V>
Element<V> lane(V x, int i) {
  Element<V> a[V::N];
  store(a, x);
  return a[i];
}

// word(V) against scalar(T) in every lane, on the edges and some random bits.
template <class V, class Word, class Scalar>
void unary(const char* what, Word word, Scalar scalar, int random = 300) {
  using T = Element<V>;
  std::vector<T> in = edges<T>();
  for (int i = 0; i < random; ++i) in.push_back(check::random_bits<T>());
  while (in.size() % V::N != 0) in.push_back(T(7));
  for (size_t i = 0; i < in.size(); i += V::N) {
    T out[V::N];
    store(out, word(load<V>(&in[i])));
    for (int j = 0; j < V::N; ++j) equal(what, out[j], scalar(in[i + j]), in[i + j]);
  }
}

template <class V, class Word, class Scalar>
void binary(const char* what, Word word, Scalar scalar) {
  using T = Element<V>;
  std::vector<T> values = edges<T>();
  for (int i = 0; i < 60; ++i) values.push_back(check::random_bits<T>());
  for (T a : values)
    unary<V>(what, [&](V b) { return word(V(a), b); }, [&](T b) { return scalar(a, b); });
}

template <class V, class Compare, class Scalar>
void comparison(const char* what, Compare compare, Scalar scalar) {
  using T = Element<V>;
  binary<V>(
      what, [&](V a, V b) { return select(compare(a, b), V(1), V(2)); },
      [&](T a, T b) { return scalar(a, b) ? T(1) : T(2); });
}

template <class V>
void test_arithmetic() {
  using T = Element<V>;
  binary<V>("+", [](V a, V b) { return a + b; }, [](T a, T b) { return a + b; });
  binary<V>("-", [](V a, V b) { return a - b; }, [](T a, T b) { return a - b; });
  binary<V>("*", [](V a, V b) { return a * b; }, [](T a, T b) { return a * b; });
  binary<V>("/", [](V a, V b) { return a / b; }, [](T a, T b) { return a / b; });
  binary<V>("+=", [](V a, V b) { return a += b; }, [](T a, T b) { return a + b; });
  binary<V>("-=", [](V a, V b) { return a -= b; }, [](T a, T b) { return a - b; });
  binary<V>("*=", [](V a, V b) { return a *= b; }, [](T a, T b) { return a * b; });
  binary<V>("min", [](V a, V b) { return min(a, b); }, [](T a, T b) { return a < b ? a : b; });
  binary<V>("max", [](V a, V b) { return max(a, b); }, [](T a, T b) { return a > b ? a : b; });
  binary<V>(
      "copysign", [](V a, V b) { return copysign(a, b); },
      [](T a, T b) { return std::copysign(a, b); });
  unary<V>("unary -", [](V a) { return -a; }, [](T a) { return -a; });
  unary<V>("abs", [](V a) { return abs(a); }, [](T a) { return std::fabs(a); });
  unary<V>("sqrt", [](V a) { return sqrt(a); }, [](T a) { return std::sqrt(a); }, 5000);
  unary<V>("round", [](V a) { return round(a); }, [](T a) { return std::nearbyint(a); }, 5000);
  unary<V>("broadcast", [](V a) { return 2.f * a + 1.f; }, [](T a) { return 2 * a + 1; });
  equal("broadcast of -0", lane(V(T(-0.0)), V::N - 1), T(-0.0));
  equal("zero", lane(zero<V>(), V::N - 1), T(0));
}

template <class V>
void test_fused() {
  using T = Element<V>;
  std::vector<T> values = edges<T>();
  for (int i = 0; i < 24; ++i) values.push_back(check::random_bits<T>());
  // 1 + 2^-12, 1 - 2^-12 and neighbours: sums that lie next to the middle of two floats
  for (T t : {T(1) + T(0x1p-12), T(1) - T(0x1p-12), T(0x1p-24), T(0x1p-25), T(0x1p-60)})
    values.push_back(t);
  for (T a : values)
    for (T b : values) {
      unary<V>(
          "fma", [&](V c) { return fma(V(a), V(b), c); }, [&](T c) { return std::fma(a, b, c); });
    }
  for (T a : values) {
    binary<V>(
        "fms", [&](V b, V c) { return fms(V(a), b, c); },
        [&](T b, T c) { return std::fma(a, b, -c); });
    binary<V>(
        "fnma", [&](V b, V c) { return fnma(V(a), b, c); },
        [&](T b, T c) { return std::fma(-a, b, c); });
    for (T b : values)
      for (T c : values) {
        const T got = lane(muladd(V(a), V(b), V(c)), 0);
        if (!check::same(got, std::fma(a, b, c))) equal("muladd", got, a * b + c, a, b, c);
      }
  }
}

// Sums that double rounds to the middle of two subnormal floats, from either side.
template <class V>
void test_fused_subnormal() {
  using T = Element<V>;
  const T half = T(0x1p-75), above = half * (1 + T(0x1p-23)), below = half * (1 - T(0x1p-23));
  for (int k = (1 << 22) - 8; k < (1 << 22) + 8; ++k)
    for (T sign : {T(1), T(-1)}) {
      const T a = above, b = sign * below, c = T(k) * T(0x1p-149);
      equal("fma subnormal", lane(fma(V(a), V(b), V(c)), 0), std::fma(a, b, c), a, b, c);
    }
}

template <class V>
void test_masks() {
  using T = Element<V>;
  comparison<V>("<", [](V a, V b) { return a < b; }, [](T a, T b) { return a < b; });
  comparison<V>("<=", [](V a, V b) { return a <= b; }, [](T a, T b) { return a <= b; });
  comparison<V>(">", [](V a, V b) { return a > b; }, [](T a, T b) { return a > b; });
  comparison<V>(">=", [](V a, V b) { return a >= b; }, [](T a, T b) { return a >= b; });
  comparison<V>("==", [](V a, V b) { return a == b; }, [](T a, T b) { return a == b; });
  comparison<V>("is_nan", [](V, V b) { return is_nan(b); }, [](T, T b) { return b != b; });
  for (int n = 0; n <= V::N; ++n)
    for (int k = 0; k <= V::N; ++k) {
      const Mask<V> a = first<V>(n), b = first<V>(k);
      equal("any", any(a & ~b), n > k, n, k);
      equal("all", all(a | ~b), n >= k, n, k);
      for (int i = 0; i < V::N; ++i) {
        equal("&", lane(select(a & b, V(1), V(2)), i), T(i < n && i < k ? 1 : 2), n, k);
        equal("|", lane(select(a | b, V(1), V(2)), i), T(i < n || i < k ? 1 : 2), n, k);
        equal("~", lane(select(~a, V(1), V(2)), i), T(i < n ? 2 : 1), n);
        const V whole = from_bits<V>(select(a, bits(V(3)), bits(V(4))));
        equal("select of Int", lane(whole, i), T(i < n ? 3 : 4), n);
      }
    }
}

template <class V>
void test_bits() {
  using T = Element<V>;
  using I = Int<V>;
  using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  using S = std::make_signed_t<U>;
  const auto u = [](T x) { return check::bit_cast<U>(x); };
  const auto t = [](auto x) { return check::bit_cast<T>(static_cast<U>(x)); };
  const auto word = [](I i) { return from_bits<V>(i); };
  binary<V>(
      "Int +", [&](V a, V b) { return word(bits(a) + bits(b)); },
      [&](T a, T b) { return t(u(a) + u(b)); });
  binary<V>(
      "Int -", [&](V a, V b) { return word(bits(a) - bits(b)); },
      [&](T a, T b) { return t(u(a) - u(b)); });
  binary<V>(
      "Int &", [&](V a, V b) { return word(bits(a) & bits(b)); },
      [&](T a, T b) { return t(u(a) & u(b)); });
  binary<V>(
      "Int |", [&](V a, V b) { return word(bits(a) | bits(b)); },
      [&](T a, T b) { return t(u(a) | u(b)); });
  binary<V>(
      "Int ^", [&](V a, V b) { return word(bits(a) ^ bits(b)); },
      [&](T a, T b) { return t(u(a) ^ u(b)); });
  unary<V>("Int ~", [&](V a) { return word(~bits(a)); }, [&](T a) { return t(~u(a)); });
  unary<V>("shl", [&](V a) { return word(shl<5>(bits(a))); }, [&](T a) { return t(u(a) << 5); });
  unary<V>("shr", [&](V a) { return word(shr<7>(bits(a))); }, [&](T a) { return t(u(a) >> 7); });
  unary<V>(
      "sar", [&](V a) { return word(sar<9>(bits(a))); },
      [&](T a) { return t(static_cast<S>(u(a)) >> 9); });
  unary<V>(
      "Int broadcast", [&](V a) { return word(bits(a) & I(-256)); },
      [&](T a) { return t(u(a) & ~U{255}); });
  unary<V>(
      "nonzero", [&](V a) { return select(nonzero(bits(a) & I(3)), V(1), V(0)); },
      [&](T a) { return T((u(a) & 3) != 0); });
  const T limit = T(2147483520);  // the largest float below 2^31
  unary<V>(
      "to_int, to_float", [&](V a) { return to_float(to_int(select(abs(a) <= limit, a, V(0)))); },
      [&](T a) {
        const T inside = std::fabs(a) <= limit ? a : T(0);
        return static_cast<T>(static_cast<int64_t>(std::nearbyint(inside)));
      });
}

template <class V>
void test_scale2() {
  using T = Element<V>;
  constexpr int range = sizeof(T) == 4 ? 300 : 2200;
  const auto exact =
      [](T x, int n) {  // double holds every float times 2^n here, so one rounding is left
        return static_cast<T>(std::ldexp(static_cast<double>(x), n));
      };
  std::vector<T> values = edges<T>();
  for (int i = 0; i < 30; ++i) values.push_back(check::random_bits<T>());
  for (int i = 0; i < 30; ++i) values.push_back(T(1) + T(check::random_word() >> 12) * T(0x1p-52));
  for (int n = -range; n <= range; ++n)
    for (T x : values) {
      equal("scale2", lane(scale2(V(x), V(T(n))), 0), exact(x, n), x, n);
      const bool near_one = n == 0 || (std::fabs(x) >= 0x1p-30 && std::fabs(x) <= 0x1p30);
      if (near_one && std::abs(n) <= 250)
        equal("scale2_near_one", lane(scale2_near_one(V(x), V(T(n))), 0), exact(x, n), x, n);
    }
  for (T n : {T(-1e9), T(1e9), T(-1e30), T(1e30)})
    for (T x : edges<T>()) {
      const T limit = x == 0 || n < 0 ? T(0) : std::numeric_limits<T>::infinity();
      const T expected = std::isfinite(x) ? std::copysign(limit, x) : x;
      equal("scale2 far", lane(scale2(V(x), V(n)), 0), expected, x, n);
    }
}

template <class V>
void test_across_lanes() {
  using T = Element<V>;
  constexpr int N = V::N;
  for (int round = 0; round < 200; ++round) {
    T a[N], tree[N], low = 0, high = 0;
    for (int i = 0; i < N; ++i) {
      tree[i] = a[i] = T(static_cast<int64_t>(check::random_word())) * T(1e-10);
      low = i == 0 || a[i] < low ? a[i] : low;
      high = i == 0 || a[i] > high ? a[i] : high;
    }
    for (int w = N / 2; w > 0; w /= 2)
      for (int i = 0; i < w; ++i) tree[i] += tree[i + w];
    equal("reduce_add", reduce_add(load<V>(a)), tree[0]);
    equal("reduce_max", reduce_max(load<V>(a)), high);
    equal("reduce_min", reduce_min(load<V>(a)), low);
  }
  V rows[N];
  for (int i = 0; i < N; ++i) {
    T a[N];
    for (int j = 0; j < N; ++j) a[j] = T(100 * i + j);
    rows[i] = load<V>(a);
  }
  const V sums = sum_lanes(rows);
  for (int i = 0; i < N; ++i)
    equal("sum_lanes", lane(sums, i), T(100 * i * N + N * (N - 1) / 2), i);
  transpose(rows);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) equal("transpose", lane(rows[i], j), T(100 * j + i), i, j);

  T numbers[N * (N + 3)];
  for (int i = 0; i < N * (N + 3); ++i) numbers[i] = T(i);
  load_transposed(rows, numbers, N + 3);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j)
      equal("load_transposed", lane(rows[i], j), T(j * (N + 3) + i), i, j);
}

void test_pair_words() {
  using D = Vec<double>;
  using F = Vec<float>;
  for (int round = 0; round < 1000; ++round) {
    uint64_t a[D::N], b[D::N];
    double x[D::N], y[D::N], product[D::N];
    for (int i = 0; i < D::N; ++i) {
      a[i] = check::random_word();
      b[i] = check::random_word();
    }
    std::memcpy(x, a, sizeof x);
    std::memcpy(y, b, sizeof y);
    store(product, from_bits<D>(multiply_words(bits(load<D>(x)), bits(load<D>(y)))));
    for (int i = 0; i < D::N; ++i) {
      const uint64_t expected = (a[i] & 0xffffffff) * (b[i] & 0xffffffff);
      equal("multiply_words", product[i], check::bit_cast<double>(expected));
    }
  }
  float even[F::N], odd[F::N];
  for (int i = 0; i < F::N; ++i) {
    even[i] = 2.f * i;
    odd[i] = 2.f * i + 1;
  }
  F front = load<F>(even), back = load<F>(odd);
  interleave(front, back);
  for (int i = 0; i < F::N; ++i) {
    equal("interleave", lane(front, i), static_cast<float>(i), i);
    equal("interleave", lane(back, i), static_cast<float>(F::N + i), i);
  }
}

template <class V>
void test_load_bytes() {
  uint8_t bytes[V::N];
  for (int i = 0; i < V::N; ++i) bytes[i] = static_cast<uint8_t>(255 - 7 * i);
  const V widened = to_float(load_bytes<V>(bytes));
  for (int i = 0; i < V::N; ++i)
    equal("load_bytes", lane(widened, i), static_cast<Element<V>>(bytes[i]), i);
}

template <class V>
void test_swap_pairs() {
  using T = Element<V>;
  T values[V::N];
  for (int i = 0; i < V::N; ++i) values[i] = static_cast<T>(i);
  const V swapped = swap_pairs(load<V>(values));
  for (int i = 0; i < V::N; ++i) equal("swap_pairs", lane(swapped, i), static_cast<T>(i ^ 1), i);
}

template <class V>
void test_all() {
  test_arithmetic<V>();
  test_fused<V>();
  test_fused_subnormal<V>();
  test_masks<V>();
  test_bits<V>();
  test_scale2<V>();
  test_across_lanes<V>();
  test_swap_pairs<V>();
  test_load_bytes<V>();
}

}  // namespace

int main() {
  test_all<Vec<float>>();
  test_all<Vec<double>>();
  test_pair_words();
  return check::result("simd_words");
}
