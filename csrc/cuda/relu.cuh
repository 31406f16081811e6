#pragma once

#include "../math/relu.h"
#include "columns.cuh"

namespace zonocuda::cuda {

/// Everything of the forward pass but the generators. Null pointers: tied slope, own bounds.
template <class T>
struct ReluForward {
  const T *center, *slope, *given_lower, *given_upper;
  T *out_center, *offset, *lower, *upper;
};

/// The relaxation of neuron i, whose own bounds are center -/+ radius.
template <class T>
__device__ void relax_neuron(const ReluForward<T>& a, int64_t i, T radius, T* multiplier) {
  const T c = a.center[i];
  const T l = a.given_lower ? a.given_lower[i] : c - radius;
  const T u = a.given_upper ? a.given_upper[i] : c + radius;
  const Relaxation<T> r = relax_relu(l, u, a.slope ? a.slope[i] : T(0), !a.slope);
  a.lower[i] = l;
  a.upper[i] = u;
  *multiplier = r.multiplier;
  a.offset[i] = r.offset;
  a.out_center[i] = r.multiplier * c + r.offset;
}

/// A thread owns a neuron. `partial_radius` may be null where bounds are given.
template <class T>
__global__ void relu_kernel(Layout s, ReluForward<T> a, const T* partial_radius, T* multiplier) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    relax_neuron(a, i, partial_radius ? finish_sum(partial_radius, s, i) : T(0), multiplier + i);
  }
}

/// The forward pass as one_pass_kernel does it.
template <class T>
struct ReluPass {
  static constexpr int kSources = 1, kFactors = 1;
  const T* sources[kSources];
  T* out;
  ReluForward<T> a;

  __device__ AbsTerm<T> term(const T* tile, int /*source_size*/) const { return {tile}; }

  __device__ void neuron(int64_t i, T radius, T* factors, int /*stride*/) const { relax_neuron(a, i, radius, factors); }

  __device__ ScaleMap<T> map(const T* tile, int /*source_size*/, const T* factors, int /*stride*/) const {
    return {tile, factors};
  }
};

/// Everything of the backward pass but the generators' gradient.
template <class T>
struct ReluGrad {
  const T *grad_center, *grad_offset, *center, *lower, *upper, *slope;
  Kink kink;
  T tolerance;
  bool external;
  T *out_center, *out_slope, *out_lower, *out_upper;
};

/// The gradients of neuron i, and the multiplier and the shift of those of its generators; `products` is sum_k gG_k
/// G_k.
template <class T>
__device__ void relax_neuron_backward(const ReluGrad<T>& a, int64_t i, T products, T* multiplier, T* shift) {
  const T gc = a.grad_center[i];
  const T lam = a.slope ? a.slope[i] : T(0);
  const RelaxationGrad<T> g = relax_relu_backward(a.lower[i], a.upper[i], lam, !a.slope, a.kink, a.tolerance,
                                                  gc * a.center[i] + products, gc + a.grad_offset[i]);
  const T slope = relax_relu(a.lower[i], a.upper[i], lam, !a.slope).multiplier;
  *multiplier = slope;
  *shift = a.external ? T(0) : g.upper - g.lower;
  a.out_slope[i] = g.slope;
  a.out_lower[i] = g.lower;
  a.out_upper[i] = g.upper;
  a.out_center[i] = slope * gc + (a.external ? T(0) : g.lower + g.upper);
}

/// A thread owns a neuron. `partial_products` may be null where no one needs sum_k gG_k G_k.
template <class T>
__global__ void relu_backward_kernel(Layout s, ReluGrad<T> a, const T* partial_products, T* multiplier, T* shift) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.neurons(); i += stride) {
    const T products = partial_products ? finish_sum(partial_products, s, i) : T(0);
    relax_neuron_backward(a, i, products, multiplier + i, shift + i);
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

/// The backward pass as one_pass_kernel does it; its sources are gG and G.
template <class T>
struct ReluGradPass {
  static constexpr int kSources = 2, kFactors = 2;
  const T* sources[kSources];
  T* out;
  ReluGrad<T> a;

  __device__ ProductTerm<T> term(const T* tile, int source_size) const { return {tile, tile + source_size}; }

  __device__ void neuron(int64_t i, T products, T* factors, int stride) const {
    relax_neuron_backward(a, i, products, factors, factors + stride);
  }

  __device__ ReluGradMap<T> map(const T* tile, int source_size, const T* factors, int stride) const {
    return {tile, tile + source_size, factors, factors + stride};
  }
};

}  // namespace zonocuda::cuda
