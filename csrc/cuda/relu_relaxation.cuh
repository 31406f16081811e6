#pragma once

#include <cstdint>

#include "../math/relu.h"

namespace zonocuda::cuda {

/// A thread owns a neuron; `slope` may be null (tied). Moves 2 to 3 reads and 2 writes for each: bound by bandwidth.
template <class T>
__global__ void relu_relaxation_kernel(int64_t count, const T* lower, const T* upper, const T* slope, T* multiplier,
                                       T* offset) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const Relaxation<T> r = relax_relu(lower[i], upper[i], slope ? slope[i] : T(0), !slope);
    multiplier[i] = r.multiplier;
    offset[i] = r.offset;
  }
}

template <class T>
struct RelaxationGradArgs {
  const T *grad_multiplier, *grad_offset, *lower, *upper, *slope;
  Kink kink;
  T tolerance;
  T *grad_slope, *grad_lower, *grad_upper;
};

/// A thread owns a neuron.
template <class T>
__global__ void relu_relaxation_backward_kernel(int64_t count, RelaxationGradArgs<T> a) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const RelaxationGrad<T> g = relax_relu_backward(a.lower[i], a.upper[i], a.slope ? a.slope[i] : T(0), !a.slope,
                                                    a.kink, a.tolerance, a.grad_multiplier[i], a.grad_offset[i]);
    a.grad_slope[i] = g.slope;
    a.grad_lower[i] = g.lower;
    a.grad_upper[i] = g.upper;
  }
}

}  // namespace zonocuda::cuda
