// The formulas of math/relu.h for `count` neurons in a row, vectorised and compiled for several instruction sets.
#pragma once

#include <cstdint>

#include "../math/relu.h"

namespace zonocuda::cpu {

/// The chosen derivative on the kink, and what counts as on it.
template <class T>
struct KinkChoice {
  Kink kink;
  T tolerance;
};

#define ZONOCUDA_DECLARE_NEURONS(T)                                                                              \
  /* lower, upper = center -/+ radius */                                                                         \
  void bounds(const T* center, const T* radius, int64_t count, T* lower, T* upper);                              \
  /* relax_relu; `slope` is null where it is tied. The offset is mu. */                                          \
  void relax(const T* lower, const T* upper, const T* slope, int64_t count, T* multiplier, T* offset);           \
  /* relax_relu_backward, from the gradients of multiplier and offset; `slope` is null where it is tied */       \
  void relax_backward(const T* lower, const T* upper, const T* slope, KinkChoice<T> choice, const T* multiplier, \
                      const T* offset, int64_t count, T* grad_slope, T* grad_lower, T* grad_upper);              \
  /* out = factor * x + shift; out may be x */                                                                   \
  void scale_shift(const T* x, const T* factor, const T* shift, int64_t count, T* out);                          \
  /* products += x * y, sum = x + z */                                                                           \
  void add_product_and_sum(const T* x, const T* y, const T* z, int64_t count, T* products, T* sum);              \
  /* sum = a + b, difference = b - a */                                                                          \
  void sum_and_difference(const T* a, const T* b, int64_t count, T* sum, T* difference);

ZONOCUDA_DECLARE_NEURONS(float)
ZONOCUDA_DECLARE_NEURONS(double)
#undef ZONOCUDA_DECLARE_NEURONS

}  // namespace zonocuda::cpu
