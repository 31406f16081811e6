#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// sign(x) * maps, at the window's place
template <class T>
struct WindowSignMap {
  const T* x;
  const T* maps;

  template <int V, class I>
  __device__ Pack<T, V> own(I offset) const {
    return load<T, V>(x + offset);
  }
  template <class I>
  __device__ I map_of(I b, I) const {
    return b;
  }
  __device__ T operator()(T own, T there) const { return sign(own) * there; }
};

}  // namespace zonocuda::cuda
