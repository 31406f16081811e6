#pragma once

#include "../math/elementary.h"

namespace zonocuda::cuda {

/// Value and bounds of a function by its number; all threads of a kernel take the same branch.
__device__ inline Enclosed evaluate(Function function, double x, double p) {
  switch (function) {
#define ZONOCUDA_EVALUATE(number, name, enclosed, slope) \
  case Function::name##_:                                \
    return enclosed;
    ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_EVALUATE)
#undef ZONOCUDA_EVALUATE
  }
  return {kNan, kNan, kNan};
}

__device__ inline double evaluate_slope(Function function, double x, double p) {
  switch (function) {
#define ZONOCUDA_SLOPE(number, name, enclosed, slope) \
  case Function::name##_:                             \
    return slope;
    ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_SLOPE)
#undef ZONOCUDA_SLOPE
  }
  return kNan;
}

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
