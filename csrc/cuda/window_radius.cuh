#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// sign(x) * maps, at the window's place
template <class T>
struct WindowSignMap {
  const T* x;
  const T* maps;
  int64_t size;  // of one map

  __device__ T operator()(int64_t offset, int64_t, int64_t b, int64_t place) const {
    return sign(x[offset]) * maps[b * size + place];
  }
};

}  // namespace zonocuda::cuda
