// Our vector words beside torch's at::vec, on the two loops that decide: the exponential over an
// array in L1, and a softmax row (maximum, exponential, sum, scale) in one go. Compiled per ISA by
// run.py; the only file that holds both.
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <vector>

#include "simd/math.h"

namespace own = suffuse::SUFFUSE_ISA;
using F = own::Vec<float>;
using A = at::vec::Vectorized<float>;

namespace {

constexpr int kLength = 1024;
constexpr float kLog2e = 1.44269504f;

template <class Exp>
void own_map(const float* x, float* y, Exp exp) {
  for (int i = 0; i < kLength; i += 2 * F::N) {  // two in flight, as in both softmax loops below
    const F a = exp(own::load<F>(x + i)), b = exp(own::load<F>(x + i + F::N));
    store(y + i, a);
    store(y + i + F::N, b);
  }
}

template <class Exp>
void at_map(const float* x, float* y, Exp exp) {
  for (int i = 0; i < kLength; i += 2 * A::size()) {
    const A a = exp(A::loadu(x + i)), b = exp(A::loadu(x + i + A::size()));
    a.store(y + i);
    b.store(y + i + A::size());
  }
}

// exp(v, m) is e^(v - m), in whatever way suits the functions at hand.
template <class Exp>
void own_softmax(const float* x, float* y, Exp exp) {
  F m(-std::numeric_limits<float>::infinity()), m2 = m;
  for (int i = 0; i < kLength; i += 2 * F::N) {
    m = max(m, own::load<F>(x + i));
    m2 = max(m2, own::load<F>(x + i + F::N));
  }
  const F top(reduce_max(max(m, m2)));
  F sum(0.f), sum2(0.f);
  for (int i = 0; i < kLength; i += 2 * F::N) {
    const F a = exp(own::load<F>(x + i), top), b = exp(own::load<F>(x + i + F::N), top);
    store(y + i, a);
    store(y + i + F::N, b);
    sum += a;
    sum2 += b;
  }
  const F scale(1.f / reduce_add(sum + sum2));
  for (int i = 0; i < kLength; i += F::N) store(y + i, own::load<F>(y + i) * scale);
}

template <class Exp>
void at_softmax(const float* x, float* y, Exp exp) {
  A m(-std::numeric_limits<float>::infinity()), m2 = m;
  for (int i = 0; i < kLength; i += 2 * A::size()) {
    m = at::vec::maximum(m, A::loadu(x + i));
    m2 = at::vec::maximum(m2, A::loadu(x + i + A::size()));
  }
  const auto larger = [](A a, A b) { return at::vec::maximum(a, b); };
  const A top(at::vec::vec_reduce_all<float>(larger, at::vec::maximum(m, m2)));
  A sum(0.f), sum2(0.f);
  for (int i = 0; i < kLength; i += 2 * A::size()) {
    const A a = exp(A::loadu(x + i), top), b = exp(A::loadu(x + i + A::size()), top);
    a.store(y + i);
    b.store(y + i + A::size());
    sum = sum + a;
    sum2 = sum2 + b;
  }
  const auto plus = [](A a, A b) { return a + b; };
  const A scale(1.f / at::vec::vec_reduce_all<float>(plus, sum + sum2));
  for (int i = 0; i < kLength; i += A::size()) (A::loadu(y + i) * scale).store(y + i);
}

struct Candidate {
  const char* name;
  std::function<void(const float*, float*)> run;
  std::vector<double> ns;
};

double seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Nanoseconds for one pass over the array, `repeat` passes a sample.
double sample(const Candidate& c, const float* x, float* y, int repeat) {
  const double start = seconds();
  for (int i = 0; i < repeat; ++i) {
    c.run(x, y);
    asm volatile("" ::: "memory");
  }
  return (seconds() - start) / repeat * 1e9;
}

double largest_relative_error(const float* got, const std::vector<double>& exact) {
  double worst = 0;
  for (int i = 0; i < kLength; ++i)
    worst = std::max(worst, std::fabs(got[i] - exact[i]) / std::fabs(exact[i]));
  return worst;
}

}  // namespace

int main() {
  alignas(64) static float x[kLength], y[kLength];
  double top = -1e30, total = 0;
  for (int i = 0; i < kLength; ++i) {
    x[i] = -15.f + 20.f * static_cast<float>(i * 2654435761u % 65536) / 65536.f;
    top = std::max(top, static_cast<double>(x[i]));
  }
  std::vector<double> exponential, softmax;
  for (float v : x) {
    exponential.push_back(std::exp(static_cast<double>(v)));
    total += std::exp(v - top);
  }
  for (float v : x) softmax.push_back(std::exp(v - top) / total);

  std::vector<Candidate> all = {
      {"exp      own exp", [](auto* a, auto* b) { own_map(a, b, [](F v) { return exp(v); }); }},
      {"exp      own exp2_fast(x log2 e)",
       [](auto* a, auto* b) { own_map(a, b, [](F v) { return exp2_fast(v * kLog2e); }); }},
      {"exp      at::vec exp", [](auto* a, auto* b) { at_map(a, b, [](A v) { return v.exp(); }); }},
      {"exp      at::vec exp_u20",
       [](auto* a, auto* b) { at_map(a, b, [](A v) { return v.exp_u20(); }); }},
      {"softmax  own exp",
       [](auto* a, auto* b) { own_softmax(a, b, [](F v, F m) { return exp(v - m); }); }},
      {"softmax  own exp2_fast",
       [](auto* a, auto* b) {
         own_softmax(a, b, [](F v, F m) { return exp2_fast((v - m) * kLog2e); });
       }},
      {"softmax  at::vec exp",
       [](auto* a, auto* b) { at_softmax(a, b, [](A v, A m) { return (v - m).exp(); }); }},
      {"softmax  at::vec exp_u20",
       [](auto* a, auto* b) { at_softmax(a, b, [](A v, A m) { return (v - m).exp_u20(); }); }},
  };
  for (int round = 0; round < 201; ++round)  // interleaved, so that all meet the same disturbances
    for (Candidate& c : all) c.ns.push_back(sample(c, x, y, 50));
  for (Candidate& c : all) {
    c.run(x, y);
    const bool rows = c.name[0] == 's';
    std::sort(c.ns.begin(), c.ns.end());
    std::printf("%-34s %7.0f ns  (quartiles %.0f to %.0f)  max relative error %.1e\n", c.name,
                c.ns[c.ns.size() / 2], c.ns[c.ns.size() / 4], c.ns[c.ns.size() * 3 / 4],
                largest_relative_error(y, rows ? softmax : exponential));
  }
}
