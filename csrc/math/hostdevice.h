// Functions that the CPU and the CUDA kernels share. No torch header may be included from csrc/math.
#pragma once

#ifdef __CUDACC__
#define ZONOCUDA_HD __host__ __device__ __forceinline__
#else
#define ZONOCUDA_HD inline
#endif
