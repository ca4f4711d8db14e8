// Philox, the normal numbers and the formula of a sampler step: known answers, and the same bits
// from a float and from a vector. Compiled once per ISA.
#include <cmath>

#include "check.h"
#include "math/lincomb.h"
#include "simd/normal.h"

using namespace suffuse;
using namespace suffuse::SUFFUSE_ISA;
using check::equal;

namespace {

using F = Vec<float>;

uint32_t random_word32() { return static_cast<uint32_t>(check::random_word() >> 32); }

// Random123's kat_vectors for philox4x32 with 10 rounds.
void known_answers() {
  struct Known {
    PhiloxBlock counter;
    uint32_t key0, key1;
    PhiloxBlock answer;
  };
  constexpr uint32_t ones = 0xffffffff;
  const Known all[] = {
      {{{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{ones, ones, ones, ones}}, ones, ones, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0xa4093822,
       0x299f31d0,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}}};
  for (const Known& known : all) {
    const PhiloxBlock got = philox(known.counter, known.key0, known.key1);
    for (int i = 0; i < 4; i++) equal("philox", got.c[i], known.answer.c[i], i);
    // The same through the vector words, as block, offset and seed.
    const auto join = [](uint32_t low, uint32_t high) { return low | uint64_t(high) << 32; };
    const uint64_t block = join(known.counter.c[0], known.counter.c[1]);
    const uint64_t offset = join(known.counter.c[2], known.counter.c[3]);
    int64_t radius[8], angle[8];
    philox_words(PhiloxKeys(join(known.key0, known.key1)), offset, block, 1, radius, angle);
    const uint64_t r = static_cast<uint64_t>(radius[0]), a = static_cast<uint64_t>(angle[0]);
    const uint64_t words[] = {r & ones, a & ones, r >> 32, a >> 32};
    for (int i = 0; i < 4; i++) equal<uint64_t>("philox_words", words[i], known.answer.c[i], i);
  }
}

// Vectors of blocks against single ones, also where a block's number passes 2^32.
void vectors_of_blocks() {
  for (int round = 0; round < 200; round++) {
    const uint64_t seed = check::random_word(), offset = check::random_word();
    const uint64_t first = round % 2 ? check::random_word() : (uint64_t(round) << 32) - 13;
    constexpr int kCount = 40;
    int64_t radius[kCount], angle[kCount];
    philox_words(PhiloxKeys(seed), offset, first, kCount, radius, angle);
    for (int j = 0; j < kCount; j++) {
      const PhiloxBlock b = philox(first + j, offset, seed);
      equal<uint64_t>("radius", radius[j], b.c[0] | uint64_t(b.c[2]) << 32, j);
      equal<uint64_t>("angle", angle[j], b.c[1] | uint64_t(b.c[3]) << 32, j);
    }
  }
}

void pair_of_normals(const int32_t (&radius)[F::N], const int32_t (&angle)[F::N]) {
  F cosine, sine;
  box_muller(load_int<F>(radius), load_int<F>(angle), cosine, sine);
  float c[F::N], s[F::N];
  store(c, cosine);
  store(s, sine);
  for (int i = 0; i < F::N; i++) {
    float one_c, one_s;
    box_muller(Word32(radius[i]), Word32(angle[i]), one_c, one_s);
    equal("cosine, vector and float", c[i], one_c, radius[i], angle[i]);
    equal("sine, vector and float", s[i], one_s, radius[i], angle[i]);
    const double u = static_cast<float>((static_cast<uint32_t>(radius[i]) + 0.5) * 0x1p-32);
    const double r = std::sqrt(-2 * std::log(u));
    const double t = static_cast<uint32_t>(angle[i]) * (0x1p-31 * 3.14159265358979323846);
    const bool close =
        std::fabs(one_c - r * std::cos(t)) < 1e-6 && std::fabs(one_s - r * std::sin(t)) < 1e-6;
    equal("within 1e-6 of Box-Muller", close ? 0.f : one_c, 0.f, radius[i], angle[i]);
  }
}

void normals() {
  const uint32_t edges[] = {0,          1,          2,          0xffff,     0x10000,
                            0x1fffffff, 0x20000000, 0x3fffffff, 0x40000000, 0x5fffffff,
                            0x60000000, 0x7fffffff, 0x80000000, 0x9fffffff, 0xa0000000,
                            0xdfffffff, 0xe0000000, 0xfffffffe, 0xffffffff, 0xb504f333};
  constexpr int kEdges = sizeof edges / sizeof *edges;
  int32_t radius[F::N], angle[F::N];
  for (int r = 0; r < kEdges; r++) {
    for (int a = 0; a < kEdges; a += F::N) {
      for (int i = 0; i < F::N; i++) {
        radius[i] = static_cast<int32_t>(edges[r]);
        angle[i] = static_cast<int32_t>(edges[(a + i) % kEdges]);
      }
      pair_of_normals(radius, angle);
    }
  }
  for (int round = 0; round < 100000; round++) {
    for (int i = 0; i < F::N; i++) {
      radius[i] =
          static_cast<int32_t>(random_word32() >> (round % 3 == 0 ? random_word32() % 32 : 0));
      angle[i] = static_cast<int32_t>(random_word32());
    }
    pair_of_normals(radius, angle);
  }
}

// The formula on a vector and on its elements, with any numbers: NaN, infinities, subnormals.
template <class T>
void formula() {
  using V = Vec<T>;
  for (int round = 0; round < 3000; round++) {
    StepWeights<T> w;
    T* entries = &w.x;
    for (size_t i = 0; i < sizeof w / sizeof(T); i++) entries[i] = check::random_bits<T>();
    w.clip = std::fabs(round % 2 ? w.clip : T(1.5));
    T x[V::N], model[V::N], scale[V::N], data[V::N], rescaled[V::N], sample[V::N], other[V::N];
    for (int i = 0; i < V::N; i++) {
      x[i] = check::random_bits<T>();
      model[i] = check::random_bits<T>();
      scale[i] = check::random_bits<T>();
    }
    const V vx = load<V>(x), vm = load<V>(model), vd = step_data(w, vx, vm);
    store(data, vd);
    store(rescaled, step_rescale(vd, load<V>(scale)));
    store(sample, step_sample(w, vx, vm, vd));
    store(other, step_converted(w, vx, vm, vd));
    for (int i = 0; i < V::N; i++) {
      const T d = step_data(w, x[i], model[i]);
      equal("step_data", data[i], d, x[i], model[i]);
      equal("step_rescale", rescaled[i], step_rescale(d, scale[i]), d, scale[i]);
      equal("step_sample", sample[i], step_sample(w, x[i], model[i], d), x[i], model[i]);
      equal("step_converted", other[i], step_converted(w, x[i], model[i], d), x[i], model[i]);
    }
  }
}

}  // namespace

int main() {
  known_answers();
  vectors_of_blocks();
  normals();
  formula<float>();
  formula<double>();
  return check::result("sampler_math");
}
