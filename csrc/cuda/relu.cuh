#pragma once

#include "../math/relu.h"
#include "columns.cuh"

namespace zonocuda::cuda {

/// Everything of the forward pass but the generators. Null pointers: tied slope, own bounds. A thread owns a neuron.
template <class T>
struct ReluForward {
  const T *center, *partial_radius, *slope, *given_lower, *given_upper;
  T *out_center, *offset, *lower, *upper, *multiplier;
};

template <class T>
__global__ void relu_kernel(Layout s, ReluForward<T> a) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    const T c = a.center[i];
    T l, u;
    if (a.given_lower) {
      l = a.given_lower[i];
      u = a.given_upper[i];
    } else {
      const T radius = finish_sum(a.partial_radius, s, i);
      l = c - radius;
      u = c + radius;
    }
    const Relaxation<T> r = relax_relu(l, u, a.slope ? a.slope[i] : T(0), !a.slope);
    a.lower[i] = l;
    a.upper[i] = u;
    a.multiplier[i] = r.multiplier;
    a.offset[i] = r.offset;
    a.out_center[i] = r.multiplier * c + r.offset;
  }
}

/// Everything of the backward pass but the generators' gradient, for which it leaves multiplier and shift behind.
/// `partial_products` may be null where no one needs sum_k gG_k G_k. A thread owns a neuron.
template <class T>
struct ReluGrad {
  const T *grad_center, *grad_offset, *partial_products, *center, *lower, *upper, *slope;
  Kink kink;
  T tolerance;
  bool external;
  T *out_center, *out_slope, *out_lower, *out_upper, *multiplier, *shift;
};

template <class T>
__global__ void relu_backward_kernel(Layout s, ReluGrad<T> a) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    const T products = a.partial_products ? finish_sum(a.partial_products, s, i) : T(0);
    const T gc = a.grad_center[i];
    const T lam = a.slope ? a.slope[i] : T(0);
    const RelaxationGrad<T> g = relax_relu_backward(a.lower[i], a.upper[i], lam, !a.slope, a.kink, a.tolerance,
                                                    gc * a.center[i] + products, gc + a.grad_offset[i]);
    const T multiplier = relax_relu(a.lower[i], a.upper[i], lam, !a.slope).multiplier;
    a.multiplier[i] = multiplier;
    a.shift[i] = a.external ? T(0) : g.upper - g.lower;
    a.out_slope[i] = g.slope;
    a.out_lower[i] = g.lower;
    a.out_upper[i] = g.upper;
    a.out_center[i] = multiplier * gc + (a.external ? T(0) : g.lower + g.upper);
  }
}

/// multiplier * grad + sign(x) * shift
template <class T>
struct ReluGradMap {
  const T *grad, *x, *multiplier, *shift;

  template <int V>
  struct Factors {
    Pack<T, V> multiplier, shift;
  };

  template <int V>
  __device__ Factors<V> factors(int64_t neuron) const {
    return {load<T, V>(multiplier + neuron), load<T, V>(shift + neuron)};
  }

  template <int V>
  __device__ Pack<T, V> operator()(int64_t offset, const Factors<V>& f) const {
    Pack<T, V> p = load<T, V>(grad + offset);
    const Pack<T, V> g = load<T, V>(x + offset);
    for (int i = 0; i < V; ++i) {
      p.at[i] = f.multiplier.at[i] * p.at[i] + sign(g.at[i]) * f.shift.at[i];
    }
    return p;
  }
};

}  // namespace zonocuda::cuda
