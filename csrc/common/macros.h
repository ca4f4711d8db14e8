// The two function qualifiers of the project.
#pragma once

#if defined(__CUDACC__)
#define SUFFUSE_HD __host__ __device__
#else
#define SUFFUSE_HD
#endif

#define SUFFUSE_INLINE inline __attribute__((always_inline))
