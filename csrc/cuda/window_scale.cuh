#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// maps, at the window's place, * x
template <class T>
struct WindowScaleMap {
  const T* x;
  const T* maps;
  int64_t size;  // of one map

  __device__ T operator()(int64_t offset, int64_t, int64_t b, int64_t place) const {
    return maps[b * size + place] * x[offset];
  }
};

}  // namespace zonocuda::cuda
