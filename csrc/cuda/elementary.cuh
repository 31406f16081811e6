#pragma once

#include "../math/elementary.h"

namespace zonocuda::cuda {

/// A thread owns an element; one read and one write, and some fifty float64 operations between them, which bound it.
/// Grid: x over elements (looped).
template <class T>
__global__ void elementary_kernel(int64_t count, const T* x, Function function, double parameter, Rounding rounding,
                                  T* y) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    store_rounded(rounded_value(evaluate(function, double(x[i]), parameter), rounding), rounding, y + i);
  }
}

/// A thread owns an element; two reads and one write. Grid: x over elements (looped).
template <class T>
__global__ void elementary_backward_kernel(int64_t count, const T* grad, const T* x, Function function,
                                           double parameter, T* grad_x) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    grad_x[i] = T(double(grad[i]) * evaluate_slope(function, double(x[i]), parameter));
  }
}

}  // namespace zonocuda::cuda
