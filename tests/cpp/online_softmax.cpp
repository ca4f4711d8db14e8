// csrc/math/online_softmax.h on float, double and vectors of both: the sum in any order and cut in
// any place, empty rows, special values.
#include "math/online_softmax.h"

#include <cmath>
#include <vector>

#include "check.h"
#include "simd/math.h"
#include "simd/vec.h"

namespace {

using namespace suffuse;
using namespace suffuse::SUFFUSE_ISA;
using check::equal;

// Every lane, or the one number.
template <class T>
std::vector<double> lanes(T x) {
  return {static_cast<double>(x)};
}
template <class T>
std::vector<double> lanes(Vec<T> x) {
  T out[Vec<T>::N];
  store(out, x);
  return {out, out + Vec<T>::N};
}

template <class F>
void close(const char* what, F got, double expected, double tolerance) {
  for (double x : lanes(got)) {
    const bool fine = std::fabs(x - expected) <= tolerance * (1 + std::fabs(expected));
    if (!fine) equal(what, x, expected);
  }
}
template <class F>
void exactly(const char* what, F got, double expected) {
  for (double x : lanes(got)) equal(what, x, expected);
}

double reference(const std::vector<double>& scores) {  // of base-2 scores, in natural units
  double top = -INFINITY, sum = 0;
  for (double s : scores) top = std::fmax(top, s);
  for (double s : scores) sum += std::exp2(s - top);
  return (top + std::log2(sum)) * 0.693147180559945309417;
}

template <class F>
SoftmaxState<F> pushed(const std::vector<double>& scores, size_t begin, size_t end) {
  using T = typename SoftmaxState<F>::T;
  SoftmaxState<F> state;
  F keep;
  for (size_t i = begin; i < end; ++i) state.push(F(static_cast<T>(scores[i])), keep);
  return state;
}

// A weighted sum beside the state, as a kernel keeps it, must come out the same wherever the scores
// are cut.
template <class F>
void test_cuts(double tolerance) {
  using T = typename SoftmaxState<F>::T;
  const std::vector<double> scores = {3, -700, 12.5, 12.25, -3, 40, 39.5, 2, -INFINITY, 38};
  double top = 40, weighted = 0, total = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    weighted += std::exp2(scores[i] - top) * static_cast<double>(i);
    total += std::exp2(scores[i] - top);
  }
  for (size_t cut = 0; cut <= scores.size(); ++cut) {
    SoftmaxState<F> state[2];
    F sum[2] = {F(0), F(0)}, keep, take;
    for (size_t i = 0; i < scores.size(); ++i) {
      const int part = i >= cut;
      const F weight = state[part].push(F(static_cast<T>(scores[i])), keep);
      sum[part] = sum[part] * keep + weight * F(static_cast<T>(i));
    }
    state[0].merge(state[1], keep, take);
    sum[0] = sum[0] * keep + sum[1] * take;
    close("weighted mean", sum[0] * state[0].inverse(), weighted / total, tolerance);
    close("lse", state[0].lse(), reference(scores), tolerance);
  }
}

template <class F>
void test_order(double tolerance) {
  std::vector<double> scores;
  for (int i = 0; i < 40; ++i)
    scores.push_back(static_cast<double>(check::random_word() % 4096) / 64);
  const double expected = reference(scores);
  for (int round = 0; round < 20; ++round) {
    for (size_t i = scores.size() - 1; i > 0; --i) {
      std::swap(scores[i], scores[check::random_word() % (i + 1)]);
    }
    close("any order", pushed<F>(scores, 0, scores.size()).lse(), expected, tolerance);
    // (a b) c and a (b c)
    F keep, take;
    SoftmaxState<F> a = pushed<F>(scores, 0, 7), b = pushed<F>(scores, 7, 30), left = a;
    const SoftmaxState<F> c = pushed<F>(scores, 30, 40);
    left.merge(b, keep, take);
    left.merge(c, keep, take);
    b.merge(c, keep, take);
    a.merge(b, keep, take);
    close("left first", left.lse(), expected, tolerance);
    close("right first", a.lse(), expected, tolerance);
  }
}

template <class F>
void test_empty() {
  using T = typename SoftmaxState<F>::T;
  F keep, take;
  SoftmaxState<F> empty;
  exactly("lse of nothing", empty.lse(), -INFINITY);
  exactly("inverse of nothing", empty.inverse(), 0);
  exactly("weight of -inf", empty.push(F(-SoftmaxState<F>::kInf), keep), 0);
  exactly("lse of -inf", empty.lse(), -INFINITY);
  empty.merge(SoftmaxState<F>(), keep, take);
  exactly("inverse of two empty parts", empty.inverse(), 0);
  for (T score : {T(0), T(-1e30), T(1e30), T(-100)}) {
    const SoftmaxState<F> one = pushed<F>({static_cast<double>(score)}, 0, 1);
    SoftmaxState<F> before = one, after;
    before.merge(SoftmaxState<F>(), keep, take);
    after.merge(one, keep, take);
    exactly("merge with nothing", before.lse(), lanes(one.lse())[0]);
    exactly("merge into nothing", after.lse(), lanes(one.lse())[0]);
    exactly("one score has weight 1", one.inverse(), 1);
  }
}

template <class F>
void test_special() {
  for (const auto& scores : {std::vector<double>{1, NAN, 2}, {NAN}, {INFINITY, 3}, {3, INFINITY}}) {
    for (double x : lanes(pushed<F>(scores, 0, scores.size()).lse())) {
      equal("NaN and +inf poison the row", std::isnan(x), true);
    }
  }
}

template <class F>
void test_all(double tolerance) {
  test_cuts<F>(tolerance);
  test_order<F>(tolerance);
  test_empty<F>();
  test_special<F>();
}

}  // namespace

int main() {
  test_all<float>(2e-6);
  test_all<double>(1e-14);
  test_all<Vec<float>>(2e-6);
  test_all<Vec<double>>(1e-14);
  return check::result("online_softmax");
}
