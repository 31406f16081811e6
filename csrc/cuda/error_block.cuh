#pragma once

#include "../math/index.h"
#include "diagonal_linear.cuh"

namespace zonocuda::cuda {

/// result[b, k, index[k]] = coefficients[b, k], in a result of zeros; a row whose index is no neuron becomes NaN. A
/// thread owns (b, k). Grid: x over (b, k) (looped). Writes one number for each row, after the zeros: these are what
/// takes time.
template <class T>
__global__ void error_block_kernel(int64_t batch, int64_t symbols, int64_t features, const T* coefficients,
                                   const int64_t* index, T* result) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < batch * symbols; i += stride) {
    const int64_t at = index[i % symbols];
    T* row = result + i * features;
    if (is_below(at, features)) {
      row[at] = coefficients[i];
    } else {
      for (int64_t n = 0; n < features; ++n) {
        row[n] = poison<T>();
      }
    }
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
