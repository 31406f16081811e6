// One entry v of a dual row at an activation between two lines: of slope `lower` with offset `below` under it, which
// counts where v >= 0, and of slope `upper` with offset `above` over it, which counts where v < 0.
//
//   image = v * slope,   low = v * (offset on v's side),   high = v * (offset on the other side)
//
// Both are 0 at v = 0, whatever the offsets. A NaN counts as not negative, and reaches all that it belongs to.
#pragma once

#include "hostdevice.h"

namespace zonocuda {

template <class T>
struct LinesStep {
  T image, low, high;
};

template <class T>
ZONOCUDA_HD LinesStep<T> lines_step(T v, T lower, T upper, T below, T above) {
  const bool negative = v < T(0), none = v == T(0);
  return {v * (negative ? upper : lower), none ? T(0) : v * (negative ? above : below),
          none ? T(0) : v * (negative ? below : above)};
}

/// Gradients of one entry: of the slope on v's side, and of the offsets.
template <class T>
struct LinesStepGrad {
  T v, slope, below, above;
};

/// From those of image, low and high.
template <class T>
ZONOCUDA_HD LinesStepGrad<T> lines_step_backward(T v, T lower, T upper, T below, T above, T grad_image, T grad_low,
                                                 T grad_high) {
  const bool negative = v < T(0), none = v == T(0);
  const T of_below = negative ? grad_high : grad_low, of_above = negative ? grad_low : grad_high;
  const T constant = none ? T(0) : of_below * below + of_above * above;
  return {grad_image * (negative ? upper : lower) + constant, grad_image * v, v * of_below, v * of_above};
}

}  // namespace zonocuda
