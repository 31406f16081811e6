#pragma once

#include "../math/nonsmooth.h"

namespace zonocuda::cuda {

/// A thread owns an element; one read and one write: bound by bandwidth. Grid: x over elements (looped).
template <class T>
__global__ void nonsmooth_relu_kernel(int64_t count, const T* x, Wide<T> left, T* y) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    y[i] = T(kinked_line(Wide<T>(x[i]), left));
  }
}

/// A thread owns an element; two reads and one write. Grid: x over elements (looped).
template <class T>
__global__ void nonsmooth_relu_backward_kernel(int64_t count, const T* grad, const T* x, Wide<T> left, Wide<T> at_zero,
                                               T* grad_x) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    grad_x[i] = T(kinked_line_grad(Wide<T>(x[i]), Wide<T>(grad[i]), left, at_zero));
  }
}

}  // namespace zonocuda::cuda
