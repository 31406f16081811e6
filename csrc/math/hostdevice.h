// Functions that the CPU and the CUDA kernels share. No torch header may be included from csrc/math.
#pragma once

#ifdef __CUDACC__
#define ZONOCUDA_HD __host__ __device__ __forceinline__
#else
// Always inlined: a kernel that is compiled for several instruction sets would otherwise call one function, compiled
// for the oldest.
#define ZONOCUDA_HD __attribute__((always_inline)) inline
#endif
