// One entry v of a dual row at a ReLU whose neuron may be split, which the row's own lower bound alone needs.
//
//   free:              image = v * lam,              low = min(v, 0) * 2 mu,  as in math/dual_relu.h
//   split to active:   image = v - max(beta, 0),     low = 0:   v x >= image x for x >= 0
//   split to dead:     image = max(beta, 0),         low = 0:     0 >= image x for x <= 0
//
// A difference of two numbers is rounded to at most the first where the second is not negative: whatever number the
// image is, it is one that the row may have. A v that is no finite number leaves none behind a dead neuron either.
#pragma once

#include <cstdint>

#include "relu.h"

namespace zonocuda {

/// lam for a relaxation that is tied, as relax_relu finds it; of a stable neuron nothing is read.
template <class T>
ZONOCUDA_HD T tied_slope(T l, T u) {
  return u / (u - l);
}

/// max(beta, 0), where the image is valid; NaN stays NaN.
template <class T>
ZONOCUDA_HD T clamp_multiplier(T beta) {
  return beta < T(0) ? T(0) : beta;
}

template <class T>
struct SplitStep {
  T image, low;
};

/// `split`: positive for active, negative for dead, 0 for free.
template <class T>
ZONOCUDA_HD SplitStep<T> split_step(T v, int8_t split, T beta, T l, T u, T lam_negative, T lam_nonnegative) {
  const bool below = v < T(0);
  const Relaxation<T> r = relax_relu(l, u, below ? lam_negative : lam_nonnegative, false);
  const T moved = clamp_multiplier(beta);
  const T image = split > 0 ? v - moved : (split < 0 ? v * T(0) + moved : v * r.multiplier);
  return {image, below & (split == 0) ? v * (T(2) * r.offset) : T(0)};
}

template <class T>
struct SplitStepGrad {
  T v, beta;
  T lam_negative, lam_nonnegative;  // one of them is zero
  T offset;                         // belongs to the relaxation where v < 0
};

/// Gradients of v, beta, lam and mu from those of image and low.
template <class T>
ZONOCUDA_HD SplitStepGrad<T> split_step_backward(T v, int8_t split, T beta, T l, T u, T lam_negative, T lam_nonnegative,
                                                 T grad_image, T grad_low) {
  const bool below = v < T(0), free = split == 0;
  const Relaxation<T> r = relax_relu(l, u, below ? lam_negative : lam_nonnegative, false);
  const T constant = below ? grad_low * (T(2) * r.offset) : T(0);
  const T through = grad_image * r.multiplier + constant;
  const T chosen = split > 0 ? -grad_image : grad_image;
  return {split > 0 ? grad_image : (split < 0 ? grad_image * T(0) : through), !free & (beta >= T(0)) ? chosen : T(0),
          free & below ? grad_image * v : T(0), free & !below ? grad_image * v : T(0),
          free & below ? T(2) * v * grad_low : T(0)};
}

}  // namespace zonocuda
