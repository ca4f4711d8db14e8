// CUDA's functions of numbers that g++ lacks. fmaf, exp2f and the like are libm's.
#pragma once

#include <math.h>

#include <cstring>

#include "cuda/host/cuda_language.h"

SUFFUSE_DEVICE float __uint_as_float(unsigned x) {
  float y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
SUFFUSE_DEVICE unsigned __float_as_uint(float x) {
  unsigned y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
SUFFUSE_DEVICE float __int_as_float(int x) { return __uint_as_float(static_cast<unsigned>(x)); }
SUFFUSE_DEVICE int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
SUFFUSE_DEVICE double __longlong_as_double(long long x) {
  double y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
SUFFUSE_DEVICE long long __double_as_longlong(double x) {
  long long y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

SUFFUSE_DEVICE int __popc(unsigned x) { return __builtin_popcount(x); }
SUFFUSE_DEVICE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
SUFFUSE_DEVICE int __ffs(int x) { return __builtin_ffs(x); }
SUFFUSE_DEVICE int __ffsll(long long x) { return __builtin_ffsll(x); }
SUFFUSE_DEVICE int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
SUFFUSE_DEVICE int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
SUFFUSE_DEVICE unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

// Rounded once, and never contracted with their neighbours, as everything is here.
SUFFUSE_DEVICE float __fadd_rn(float a, float b) { return a + b; }
SUFFUSE_DEVICE float __fsub_rn(float a, float b) { return a - b; }
SUFFUSE_DEVICE float __fmul_rn(float a, float b) { return a * b; }
SUFFUSE_DEVICE float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
SUFFUSE_DEVICE float __fdiv_rn(float a, float b) { return a / b; }
SUFFUSE_DEVICE float __fsqrt_rn(float a) { return ::sqrtf(a); }
// Within 2 ulp.
SUFFUSE_DEVICE float rsqrtf(float x) {
  return emulator::approximate(static_cast<float>(1.0 / ::sqrt(static_cast<double>(x))), 2);
}
SUFFUSE_DEVICE double rsqrt(double x) { return 1.0 / ::sqrt(x); }

SUFFUSE_DEVICE int min(int a, int b) { return b < a ? b : a; }
SUFFUSE_DEVICE int max(int a, int b) { return a < b ? b : a; }
SUFFUSE_DEVICE unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
SUFFUSE_DEVICE unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
SUFFUSE_DEVICE long min(long a, long b) { return b < a ? b : a; }
SUFFUSE_DEVICE long max(long a, long b) { return a < b ? b : a; }
SUFFUSE_DEVICE unsigned long min(unsigned long a, unsigned long b) { return b < a ? b : a; }
SUFFUSE_DEVICE unsigned long max(unsigned long a, unsigned long b) { return a < b ? b : a; }
SUFFUSE_DEVICE long long min(long long a, long long b) { return b < a ? b : a; }
SUFFUSE_DEVICE long long max(long long a, long long b) { return a < b ? b : a; }
SUFFUSE_DEVICE unsigned long long min(unsigned long long a, unsigned long long b) {
  return b < a ? b : a;
}
SUFFUSE_DEVICE unsigned long long max(unsigned long long a, unsigned long long b) {
  return a < b ? b : a;
}
// The number where one of the two is NaN.
SUFFUSE_DEVICE float min(float a, float b) { return ::fminf(a, b); }
SUFFUSE_DEVICE float max(float a, float b) { return ::fmaxf(a, b); }
SUFFUSE_DEVICE double min(double a, double b) { return ::fmin(a, b); }
SUFFUSE_DEVICE double max(double a, double b) { return ::fmax(a, b); }

template <class T>
SUFFUSE_DEVICE T __ldg(const T* p, SUFFUSE_WHERE) {
  T value;
  emulator::load(p, &value, sizeof value, {file, line});
  return value;
}
