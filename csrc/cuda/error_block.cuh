#pragma once

#include "../math/index.h"
#include "diagonal_linear.cuh"

namespace zonocuda::cuda {

/// result[b, k, n] = coefficients[b, k] where n == index[k], else 0. A thread owns an element; writes once: bound by
/// bandwidth. A row whose index is no neuron is NaN. Grid: x over elements (looped).
template <class T>
__global__ void error_block_kernel(int64_t batch, int64_t symbols, int64_t features, const T* coefficients,
                                   const int64_t* index, T* result) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < batch * symbols * features; i += stride) {
    const int64_t row = i / features;
    const int64_t at = index[row % symbols];
    const bool valid = at >= 0 && at < features;
    result[i] = !valid ? poison<T>() : (i % features == at ? coefficients[row] : T(0));
  }
}

/// grad_coefficients[b, k] = grad[b, k, index[k]]. A thread owns (b, k).
template <class T>
__global__ void error_block_backward_kernel(int64_t batch, int64_t symbols, int64_t features, const T* grad,
                                            const int64_t* index, T* grad_coefficients) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < batch * symbols; i += stride) {
    const int64_t at = index[i % symbols];
    grad_coefficients[i] = at >= 0 && at < features ? grad[i * features + at] : poison<T>();
  }
}

}  // namespace zonocuda::cuda
