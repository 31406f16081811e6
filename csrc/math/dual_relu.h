// One entry v of a dual row at a ReLU with two relaxations: one where v < 0, and one where it is not.
//
//   image = v * lam,   low = min(v, 0) * 2 mu,   high = max(v, 0) * 2 mu
//
// A NaN counts as not negative, and reaches all that it belongs to.
#pragma once

#include "relu.h"

namespace zonocuda {

template <class T>
struct DualStep {
  T image, low, high;
};

/// `twice_*`: 2 mu.
template <class T>
ZONOCUDA_HD DualStep<T> dual_step(T v, T lam_negative, T twice_negative, T lam_nonnegative, T twice_nonnegative) {
  const bool below = v < T(0);
  return {v * (below ? lam_negative : lam_nonnegative), below ? v * twice_negative : T(0),
          v <= T(0) ? T(0) : v * twice_nonnegative};
}

template <class T>
struct DualStepGrad {
  T v, multiplier, offset;  // the latter two belong to the relaxation on v's side of zero
};

/// Gradients of v, lam and mu from those of image, low and high.
template <class T>
ZONOCUDA_HD DualStepGrad<T> dual_step_backward(T v, T lam_negative, T twice_negative, T lam_nonnegative,
                                               T twice_nonnegative, T grad_image, T grad_low, T grad_high) {
  const bool below = v < T(0);
  const T grad_constant = below ? grad_low : grad_high;
  const T twice = below ? twice_negative : (v <= T(0) ? T(0) : twice_nonnegative);
  return {grad_image * (below ? lam_negative : lam_nonnegative) + grad_constant * twice, grad_image * v,
          T(2) * v * grad_constant};
}

}  // namespace zonocuda
