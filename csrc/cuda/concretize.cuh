#pragma once

#include "../math/relu.h"
#include "columns.cuh"

namespace zonocuda::cuda {

/// lower, upper = center -/+ radius. A thread owns a neuron.
template <class T>
__global__ void concretize_kernel(Layout s, const T* center, const T* partial_radius, T* lower, T* upper) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    const T radius = finish_sum(partial_radius, s, i);
    lower[i] = center[i] - radius;
    upper[i] = center[i] + radius;
  }
}

/// grad_center = grad_lower + grad_upper, shift = grad_upper - grad_lower. A thread owns a neuron.
template <class T>
__global__ void concretize_backward_kernel(int64_t neurons, const T* grad_lower, const T* grad_upper, T* grad_center,
                                           T* shift) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < neurons; i += stride) {
    grad_center[i] = grad_lower[i] + grad_upper[i];
    shift[i] = grad_upper[i] - grad_lower[i];
  }
}

/// sign(x) * shift
template <class T>
struct SignMap {
  const T* x;
  const T* shift;

  template <int V>
  using Factors = Pack<T, V>;

  template <int V>
  __device__ Pack<T, V> factors(int64_t neuron) const {
    return load<T, V>(shift + neuron);
  }

  template <int V>
  __device__ Pack<T, V> operator()(int64_t offset, const Pack<T, V>& f) const {
    Pack<T, V> p = load<T, V>(x + offset);
    for (int i = 0; i < V; ++i) {
      p.at[i] = sign(p.at[i]) * f.at[i];
    }
    return p;
  }
};

}  // namespace zonocuda::cuda
