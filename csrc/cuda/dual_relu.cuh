#pragma once

#include "../math/dual_relu.h"
#include "../math/index.h"
#include "columns.cuh"

namespace zonocuda::cuda {

/// Slopes [batch, 1 or rows, features] of one side; null: tied.
template <class T>
struct DualSide {
  const T* slope;
  bool per_row;

  __device__ int64_t at(int64_t b, int64_t r, int64_t n, int64_t rows, int64_t features) const {
    return per_row ? generator_offset(b, r, n, rows, features) : b * features + n;
  }

  __device__ Relaxation<T> relax(T l, T u, int64_t b, int64_t r, int64_t n, int64_t rows, int64_t features) const {
    return relax_relu(l, u, slope ? slope[at(b, r, n, rows, features)] : T(0), !slope);
  }
};

/// `one`: both signs have the slopes of `negative`.
template <class T>
struct DualArgs {
  int64_t batch, rows, features;
  const T *v, *lower, *upper;
  DualSide<T> negative, nonnegative;
  bool one;

  __device__ Relaxation<T> below(int64_t b, int64_t r, int64_t n) const {
    return negative.relax(lower[b * features + n], upper[b * features + n], b, r, n, rows, features);
  }

  __device__ Relaxation<T> above(int64_t b, int64_t r, int64_t n) const {
    const T l = lower[b * features + n];
    const T u = upper[b * features + n];
    return one ? negative.relax(l, u, b, r, n, rows, features) : nonnegative.relax(l, u, b, r, n, rows, features);
  }
};

/// A block owns a row (looped), a thread every kThreads-th entry of it; both sums are added up in shared memory, in a
/// fixed order. Block (kThreads). Reads v and the slopes and writes the image once; l and u come from the cache after
/// the first row: bound by memory bandwidth.
template <class T>
__global__ void dual_relu_kernel(DualArgs<T> a, T* image, T* low, T* high) {
  __shared__ T sums[2][kThreads];
  for (int64_t row = blockIdx.x; row < a.batch * a.rows; row += gridDim.x) {
    const int64_t b = row / a.rows;
    const int64_t r = row % a.rows;
    T lows = T(0);
    T highs = T(0);
    for (int64_t n = threadIdx.x; n < a.features; n += kThreads) {
      const int64_t entry = row * a.features + n;
      const Relaxation<T> below = a.below(b, r, n);
      const Relaxation<T> above = a.above(b, r, n);
      const DualStep<T> s =
          dual_step(a.v[entry], below.multiplier, T(2) * below.offset, above.multiplier, T(2) * above.offset);
      image[entry] = s.image;
      lows += s.low;
      highs += s.high;
    }
    sums[0][threadIdx.x] = lows;
    sums[1][threadIdx.x] = highs;
    __syncthreads();
    for (int64_t half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) {
        sums[0][threadIdx.x] += sums[0][threadIdx.x + half];
        sums[1][threadIdx.x] += sums[1][threadIdx.x + half];
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      low[row] = sums[0][0];
      high[row] = sums[1][0];
    }
    __syncthreads();
  }
}

/// Null pointers among the outputs but the first: nobody wants them (bounds), or tied (slopes).
template <class T>
struct DualGrad {
  const T *grad_image, *grad_low, *grad_high;
  Kink kink;
  T tolerance;
  T *out_v, *out_lower, *out_upper, *out_negative, *out_nonnegative;
};

/// Hands A = sum of grad_multiplier and m = sum of grad_offset to the slopes, and adds to the gradients of l and u.
template <class T>
__device__ void finish_side(const DualArgs<T>& a, const DualGrad<T>& g, const DualSide<T>& side, T* out, int64_t b,
                            int64_t r, int64_t n, T multiplier, T offset, T& lower, T& upper) {
  const int64_t at = side.at(b, r, n, a.rows, a.features);
  const RelaxationGrad<T> d =
      relax_relu_backward(a.lower[b * a.features + n], a.upper[b * a.features + n], side.slope ? side.slope[at] : T(0),
                          !side.slope, g.kink, g.tolerance, multiplier, offset);
  lower += d.lower;
  upper += d.upper;
  if (out) {
    out[at] = d.slope;
  }
}

/// A thread owns a neuron (looped) and goes through its rows in order: no atomics. Reads v, its gradient and the slopes
/// once, in rows of neighbouring neurons: bound by memory bandwidth where there are neurons enough to fill the device.
template <class T>
__global__ void dual_relu_backward_kernel(DualArgs<T> a, DualGrad<T> g) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.batch * a.features; i += stride) {
    const int64_t b = i / a.features;
    const int64_t n = i % a.features;
    T lower = T(0);
    T upper = T(0);
    T multiplier[2] = {T(0), T(0)};
    T offset[2] = {T(0), T(0)};
    for (int64_t r = 0; r < a.rows; ++r) {
      const int64_t entry = generator_offset(b, r, n, a.rows, a.features);
      const T v = a.v[entry];
      const Relaxation<T> below = a.below(b, r, n);
      const Relaxation<T> above = a.above(b, r, n);
      const DualStepGrad<T> d =
          dual_step_backward(v, below.multiplier, T(2) * below.offset, above.multiplier, T(2) * above.offset,
                             g.grad_image[entry], g.grad_low[b * a.rows + r], g.grad_high[b * a.rows + r]);
      g.out_v[entry] = d.v;
      if (!g.out_lower) {
        continue;
      }
      const bool first = a.one || v < T(0);
      if (a.negative.per_row) {
        finish_side(a, g, a.negative, g.out_negative, b, r, n, first ? d.multiplier : T(0), first ? d.offset : T(0),
                    lower, upper);
      } else if (first) {
        multiplier[0] += d.multiplier;
        offset[0] += d.offset;
      }
      if (a.one) {
        continue;
      }
      if (a.nonnegative.per_row) {
        finish_side(a, g, a.nonnegative, g.out_nonnegative, b, r, n, first ? T(0) : d.multiplier,
                    first ? T(0) : d.offset, lower, upper);
      } else if (!first) {
        multiplier[1] += d.multiplier;
        offset[1] += d.offset;
      }
    }
    if (!g.out_lower) {
      continue;
    }
    if (!a.negative.per_row) {
      finish_side(a, g, a.negative, g.out_negative, b, 0, n, multiplier[0], offset[0], lower, upper);
    }
    if (!a.one && !a.nonnegative.per_row) {
      finish_side(a, g, a.nonnegative, g.out_nonnegative, b, 0, n, multiplier[1], offset[1], lower, upper);
    }
    g.out_lower[i] = lower;
    g.out_upper[i] = upper;
  }
}

}  // namespace zonocuda::cuda
