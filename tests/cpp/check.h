// What the C++ test programs share: counted checks that say where they failed, edge values, random
// words.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

namespace check {

inline int failures = 0;

template <class T>
bool same(T a, T b) {  // the same bits, or both NaN
  return std::memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

template <class T, class... Inputs>
void equal(const char* what, T got, T expected, Inputs... inputs) {
  if (same(got, expected)) return;
  if (++failures > 40) return;
  std::printf("FAIL %s: got %.17g, expected %.17g; inputs", what, static_cast<double>(got),
              static_cast<double>(expected));
  ((std::printf(" %.17g", static_cast<double>(inputs))), ...);
  std::printf("\n");
}

inline uint64_t random_word() {  // xorshift64*
  static uint64_t state = 0x9e3779b97f4a7c15;
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1d;
}

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T>
T random_bits() {
  if constexpr (sizeof(T) == 4) {
    return bit_cast<T>(static_cast<uint32_t>(random_word() >> 32));
  } else {
    return bit_cast<T>(random_word());
  }
}

// Zeros, subnormals, the ends of the range, halves (ties of round), infinities, NaN, both signs.
template <class T>
std::vector<T> edges() {
  using L = std::numeric_limits<T>;
  const T magic = sizeof(T) == 4 ? T(8388608) : T(4503599627370496);
  std::vector<T> r;
  for (T x : {T(0),
              L::denorm_min(),
              L::min() / 2,
              L::min() - L::denorm_min(),
              L::min(),
              T(1e-20),
              T(0.25),
              T(0.5),
              std::nextafter(T(0.5), T(0)),
              T(1),
              T(1.5),
              T(2.5),
              T(3),
              T(100.5),
              magic / 2 - T(0.5),
              magic - 1,
              magic + 1,
              T(2147483520),
              T(1e30),
              L::max(),
              L::infinity(),
              L::quiet_NaN()}) {
    r.push_back(x);
    r.push_back(-x);
  }
  return r;
}

// Exit status of main: 0, or 1 after any failure.
inline int result(const char* program) {
  std::printf("%s: %d failures\n", program, failures);
  return failures ? 1 : 0;
}

}  // namespace check
