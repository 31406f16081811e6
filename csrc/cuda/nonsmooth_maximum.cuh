#pragma once

#include "../math/nonsmooth.h"

namespace zonocuda::cuda {

/// A thread owns an element; two reads, a write and a byte. Grid: x over elements (looped).
template <class T>
__global__ void nonsmooth_maximum_kernel(int64_t count, const T* a, const T* b, T* values, int8_t* sides) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const int8_t side = larger_side(Wide<T>(a[i]), Wide<T>(b[i]));
    values[i] = side < 0 ? b[i] : a[i];
    sides[i] = side;
  }
}

/// A thread owns an element; a read, a byte and two writes. Grid: x over elements (looped).
template <class T>
__global__ void nonsmooth_maximum_backward_kernel(int64_t count, const T* grad, const int8_t* sides, double first,
                                                  T* grad_a, T* grad_b) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  const Wide<T> weight = Wide<T>(first);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const SideShares<Wide<T>> shares = side_shares(sides[i], Wide<T>(grad[i]), weight);
    grad_a[i] = T(shares.a);
    grad_b[i] = T(shares.b);
  }
}

}  // namespace zonocuda::cuda
