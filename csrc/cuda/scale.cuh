#pragma once

#include "columns.cuh"

namespace zonocuda::cuda {

/// The sum of the partial products of each neuron; zero where there are none. A thread owns a neuron.
template <class T>
__global__ void scale_backward_kernel(Layout s, const T* partial_products, T* grad_multiplier) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    grad_multiplier[i] = partial_products ? finish_sum(partial_products, s, i) : T(0);
  }
}

}  // namespace zonocuda::cuda
