// The error of every function of simd/math.h against double, in units of the last place, over all
// floats at a stride (first argument; 1 is every float), and exact values at the special ones.
// Compiled once per ISA.
#include <cstdlib>

#include "check.h"
#include "simd/math.h"

using namespace suffuse::SUFFUSE_ISA;
using F = Vec<float>;

namespace {

constexpr float kInf = INFINITY;
uint32_t stride = 509;

// Distance in units of the last float place at `exact`; infinity counts as 2^128.
double ulps(float got, double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  if (std::isnan(got)) return 1e9;
  const double limit = 0x1p128;
  const double e = std::fmax(-limit, std::fmin(limit, exact));
  const double g = std::isinf(got) ? std::copysign(limit, got) : got;
  int exponent = 0;
  std::frexp(e, &exponent);
  const int place = e == 0 ? -149 : exponent - 24;
  return std::fabs(g - e) / std::ldexp(1.0, place < -149 ? -149 : place > 104 ? 104 : place);
}

struct Worst {
  double ulps = 0;
  float at = 0;
};

template <class Function, class Exact>
void check_block(const float* in, int n, Function function, Exact exact, Worst& worst) {
  float out[F::N];
  store(out, function(load<F>(in, n)));
  for (int i = 0; i < n; ++i) {
    const double u = ulps(out[i], exact(static_cast<double>(in[i])));
    if (u > worst.ulps) worst = {u, in[i]};
  }
}

// All floats in [low, high] at the stride, and the 64 floats on either side of each edge, where
// methods change.
template <class Function, class Exact>
void ulp_test(const char* name, Function function, Exact exact, double bound, float low = -kInf,
              float high = kInf) {
  Worst worst;
  float in[F::N];
  int n = 0;
  const auto add = [&](uint32_t bits) {
    const float x = check::bit_cast<float>(bits);
    if (!(x >= low && x <= high)) return;
    in[n++] = x;
    if (n == F::N) {
      check_block(in, n, function, exact, worst);
      n = 0;
    }
  };
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += stride)
    add(static_cast<uint32_t>(bits));
  for (float edge :
       {0.f,         0x1p-126f,   0.34657359f,    0.4142f, 0.5f,        0.625f,      0.70710678f,
        0.78539816f, 0.88137359f, 0.93f,          1.f,     1.41421356f, 1.57079633f, 2.f,
        3.14159265f, 4.f,         10.f,           50.f,    87.33655f,   88.72284f,   100.f,
        103.97208f,  110.f,       126.f,          127.f,   128.f,       149.f,       150.f,
        160.f,       131072.f,    3.40282347e38f, kInf})
    for (int i = -64; i <= 64; ++i) {
      const uint32_t bits = check::bit_cast<uint32_t>(edge) + i;
      add(bits & 0x7fffffff);
      add(bits | 0x80000000);
    }
  check_block(in, n, function, exact, worst);
  std::printf("%-10s max %.3f ULP (at %.9g), bound %.1f\n", name, worst.ulps, worst.at, bound);
  if (worst.ulps > bound) ++check::failures;
}

struct Special {
  float in, out;
};
template <class Function>
void special_test(const char* name, Function function, std::initializer_list<Special> cases) {
  for (const Special& c : cases) {
    float out[F::N];
    store(out, function(F(c.in)));
    for (float got : out) check::equal(name, got, c.out, c.in);
    float lone[F::N] = {};  // and beside other numbers
    lone[F::N - 1] = c.in;
    store(out, function(load<F>(lone)));
    check::equal(name, out[F::N - 1], c.out, c.in);
  }
}

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double exact_silu(double x) { return x < -700 ? -0.0 : x / (1 + std::exp(-x)); }
double exact_softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }

#define FLOAT_FUNCTION(name) [](F x) { return name(x); }
#define EXACT_FUNCTION(name) [](double x) { return std::name(x); }

// The promise is 2 ULP (exp2_fast 2.1); the bounds are a little above what was measured.
void test_ulps() {
  ulp_test("exp", FLOAT_FUNCTION(exp), EXACT_FUNCTION(exp), 1.1);
  ulp_test("exp2", FLOAT_FUNCTION(exp2), EXACT_FUNCTION(exp2), 1.3);
  ulp_test("exp2_fast", FLOAT_FUNCTION(exp2_fast), EXACT_FUNCTION(exp2), 2.1, -126.f, 127.5f);
  ulp_test("log", FLOAT_FUNCTION(log), EXACT_FUNCTION(log), 1.0);
  ulp_test("sigmoid", FLOAT_FUNCTION(sigmoid), exact_sigmoid, 1.1);
  ulp_test("silu", FLOAT_FUNCTION(silu), exact_silu, 1.2);
  ulp_test("sigmoid_fast", FLOAT_FUNCTION(sigmoid_fast), exact_sigmoid, 4.0, -87.f);
  ulp_test("silu_fast", FLOAT_FUNCTION(silu_fast), exact_silu, 4.0, -87.f);
  ulp_test("softplus", FLOAT_FUNCTION(softplus), exact_softplus, 1.4);
  ulp_test("softplus_fast", FLOAT_FUNCTION(softplus_fast), exact_softplus, 3.4, -87.f);
  for (float a : {1.f, 0.7f, -3.3f}) {
    const auto product = [a](double x) { return std::exp2(x * a); };
    // Without AVX-512 the product is rounded first: half an ULP of 127 is 44 of the result.
    const double bound = a == 1.f || F::N == 16 ? 1.2 : 1.2 + 44;
    const float low = -126.f / std::fabs(a), high = 127.f / std::fabs(a);
    ulp_test(
        "exp2_decay", [a](F x) { return exp2_decay(x, F(a)); }, product, bound, a > 0 ? low : -high,
        a > 0 ? high : -low);
  }
  ulp_test("tanh", FLOAT_FUNCTION(tanh), EXACT_FUNCTION(tanh), 1.4);
  ulp_test("tanh_fast", FLOAT_FUNCTION(tanh_fast), EXACT_FUNCTION(tanh), 6.0);
  ulp_test("erf", FLOAT_FUNCTION(erf), EXACT_FUNCTION(erf), 1.5);
  ulp_test("sin", FLOAT_FUNCTION(sin), EXACT_FUNCTION(sin), 1.7);
  ulp_test("cos", FLOAT_FUNCTION(cos), EXACT_FUNCTION(cos), 1.7);
}

void test_specials() {
  const float nan = NAN, tiny = 0x1p-149f;
  special_test("exp", FLOAT_FUNCTION(exp),
               {{0.f, 1}, {-0.f, 1}, {kInf, kInf}, {-kInf, 0}, {nan, nan}, {tiny, 1}});
  special_test("exp2", FLOAT_FUNCTION(exp2),
               {{0.f, 1},
                {-0.f, 1},
                {kInf, kInf},
                {-kInf, 0},
                {nan, nan},
                {-149, tiny},
                {10, 1024},
                {128, kInf}});
  special_test(
      "exp2_fast", FLOAT_FUNCTION(exp2_fast),
      {{0.f, 1}, {-0.f, 1}, {-kInf, 0}, {nan, nan}, {-3e38f, 0}, {-126, 0x1p-126f}, {10, 1024}});
  special_test("log", FLOAT_FUNCTION(log),
               {{0.f, -kInf},
                {-0.f, -kInf},
                {kInf, kInf},
                {1, 0},
                {-kInf, nan},
                {-1, nan},
                {-tiny, nan},
                {nan, nan}});
  special_test("sigmoid", FLOAT_FUNCTION(sigmoid),
               {{0.f, 0.5f}, {-0.f, 0.5f}, {kInf, 1}, {-kInf, 0}, {nan, nan}});
  special_test("silu", FLOAT_FUNCTION(silu),
               {{0.f, 0.f}, {-0.f, -0.f}, {kInf, kInf}, {-kInf, -0.f}, {nan, nan}, {3e38f, 3e38f}});
  special_test("sigmoid_fast", FLOAT_FUNCTION(sigmoid_fast),
               {{0.f, 0.5f}, {-0.f, 0.5f}, {kInf, 1}, {nan, nan}, {3e38f, 1}});
  special_test("tanh_fast", FLOAT_FUNCTION(tanh_fast), {{0.f, 0}, {-0.f, -0.0}, {nan, nan}});
  special_test("silu_fast", FLOAT_FUNCTION(silu_fast),
               {{0.f, 0.f}, {-0.f, -0.f}, {kInf, kInf}, {nan, nan}, {3e38f, 3e38f}});
  special_test("softplus_fast", FLOAT_FUNCTION(softplus_fast),
               {{kInf, kInf}, {nan, nan}, {3e38f, 3e38f}, {200, 200}});
  special_test("exp2_decay", [](F x) { return exp2_decay(x, F(1.f)); },
               {{0.f, 1}, {-0.f, 1}, {-kInf, 0}, {nan, nan}, {-3e38f, 0}, {10, 1024}});
  special_test("softplus", FLOAT_FUNCTION(softplus),
               {{0.f, 0x1.62e430p-1f}, {kInf, kInf}, {-kInf, 0.f}, {nan, nan}, {3e38f, 3e38f}});
  special_test("tanh", FLOAT_FUNCTION(tanh),
               {{0.f, 0.f}, {-0.f, -0.f}, {kInf, 1}, {-kInf, -1}, {nan, nan}, {-tiny, -tiny}});
  special_test("erf", FLOAT_FUNCTION(erf),
               {{0.f, 0.f}, {-0.f, -0.f}, {kInf, 1}, {-kInf, -1}, {nan, nan}, {tiny, tiny}});
  special_test("sin", FLOAT_FUNCTION(sin),
               {{0.f, 0.f}, {-0.f, -0.f}, {kInf, nan}, {-kInf, nan}, {nan, nan}, {-tiny, -tiny}});
  special_test("cos", FLOAT_FUNCTION(cos),
               {{0.f, 1}, {-0.f, 1}, {kInf, nan}, {-kInf, nan}, {nan, nan}, {tiny, 1}});
}

// exp2_fast below the range of normal numbers: 0, or what exp2 gives.
void test_exp2_fast_underflow() {
  for (float x = -126.f; x > -400.f; x -= 0.0371f) {
    float fast[F::N];
    store(fast, exp2_fast(F(x)));
    const bool small = fast[0] >= 0 && fast[0] <= 1.0001f * 0x1p-126f;
    check::equal("exp2_fast underflow", small, true, x, fast[0]);
  }
}

// sincos gives the bits of sin and cos.
void test_sincos() {
  for (int round = 0; round < 100000; ++round) {
    float in[F::N], sine[F::N], cosine[F::N], s[F::N], c[F::N];
    for (float& x : in) x = check::random_bits<float>();
    F a, b;
    sincos(load<F>(in), a, b);
    store(sine, a);
    store(cosine, b);
    store(s, sin(load<F>(in)));
    store(c, cos(load<F>(in)));
    for (int i = 0; i < F::N; ++i) {
      check::equal("sincos", sine[i], s[i], in[i]);
      check::equal("sincos", cosine[i], c[i], in[i]);
    }
  }
}

// The double forms, close to float's where that is the check at hand.
void test_double() {
  using D = Vec<double>;
  const auto close = [](const char* name, auto function, auto exact) {
    for (double x :
         {-1e300, -750., -40., -3., -0.7, -1e-9, -0., 0., 1e-9, 0.3, 2.5, 30., 700., 1e300}) {
      double out[D::N];
      store(out, function(D(x)));
      const double e = exact(x);
      for (double got : out) {
        const bool ok = check::same(got, e) || std::fabs(got - e) <= 4e-16 * std::fabs(e);
        check::equal(name, ok, true, x, got, e);
      }
    }
    double out[D::N];
    store(out, function(D(NAN)));
    check::equal(name, std::isnan(out[0]), true);
  };
  close("exp<double>", [](D x) { return exp(x); }, EXACT_FUNCTION(exp));
  close("exp2<double>", [](D x) { return exp2(x); }, EXACT_FUNCTION(exp2));
  close("exp2_fast<double>", [](D x) { return exp2_fast(x); }, EXACT_FUNCTION(exp2));
  close("log<double>", [](D x) { return log(x); }, EXACT_FUNCTION(log));
  close("sigmoid<double>", [](D x) { return sigmoid(x); }, exact_sigmoid);
  close(
      "silu<double>", [](D x) { return silu(x); },
      [](double x) {
        return x < -800 ? -0.0
               : x < 0  ? x * std::exp(x) / (1 + std::exp(x))
                        : x / (1 + std::exp(-x));
      });
  close("softplus<double>", [](D x) { return softplus(x); }, exact_softplus);
  close("exp2_decay<double>", [](D x) { return exp2_decay(x, D(1.)); }, EXACT_FUNCTION(exp2));
  close("tanh<double>", [](D x) { return tanh(x); }, EXACT_FUNCTION(tanh));
  close("erf<double>", [](D x) { return erf(x); }, EXACT_FUNCTION(erf));
  close("sin<double>", [](D x) { return sin(x); }, EXACT_FUNCTION(sin));
  close("cos<double>", [](D x) { return cos(x); }, EXACT_FUNCTION(cos));
  D s, c;
  sincos(D(2.), s, c);
  check::equal("sincos<double>", reduce_max(s), std::sin(2.));
  check::equal("sincos<double>", reduce_max(c), std::cos(2.));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) stride = static_cast<uint32_t>(std::strtoul(argv[1], nullptr, 10));
  if (stride == 0) return 2;
  test_specials();
  test_exp2_fast_underflow();
  test_sincos();
  test_double();
  test_ulps();
  return check::result("simd_math");
}
