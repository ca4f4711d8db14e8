// Functions of one float that the hardware approximates. All but tanh_approx take subnormal numbers
// for zeros of their sign and return such zeros for subnormal results.
#pragma once

namespace suffuse::gpu {

// 2^x, error <= 2 ulp. PTX: ex2.approx.ftz.f32.
SUFFUSE_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2 x, error <= 2^-22 absolute for x in (0.5, 2), relative elsewhere. PTX: lg2.approx.ftz.f32.
SUFFUSE_DEVICE float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, error <= 1 ulp. PTX: rcp.approx.ftz.f32.
SUFFUSE_DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / sqrt(x), relative error <= 2^-22.9. PTX: rsqrt.approx.ftz.f32.
SUFFUSE_DEVICE float rsqrt_approx(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh x, relative error <= 2^-11. PTX: tanh.approx.f32.
SUFFUSE_DEVICE float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace suffuse::gpu
