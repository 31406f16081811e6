// The zonotope ReLU of one neuron with bounds [l, u] and slope lam, and its derivatives.
//
//   u <= 0 (tested first): zero.   l >= 0: identity.   else, for any lam in [0, 1],
//     relu(x) in lam * x + mu + [-mu, mu]   on [l, u],   mu = max(-l * lam, u * (1 - lam)) / 2.
//
// A neuron with a NaN bound is in neither stable case, and a NaN in l, u or lam reaches mu, since max passes it on.
#pragma once

#include <cstdint>

#include "hostdevice.h"

namespace zonocuda {

/// Which derivative of mu is returned where lam equals u / (u - l) up to the given tolerance.
enum class Kink : int64_t { envelope = 0, left = 1, right = 2, even = 3, min_norm = 4 };

template <class T>
struct Relaxation {
  T multiplier;  // what scales the center and the generators
  T offset;      // mu: what is added to the center, and the coefficient of the new symbol
};

template <class T>
struct RelaxationGrad {
  T slope, lower, upper;
};

template <class T>
ZONOCUDA_HD bool is_dead(T l, T u) {
  return (u <= T(0)) & (l == l);
}

template <class T>
ZONOCUDA_HD bool is_active(T l, T u) {
  return (l >= T(0)) & (u == u);
}

/// lam limited to [0, 1], where the relaxation is sound; NaN stays NaN.
template <class T>
ZONOCUDA_HD T clamp_slope(T lam) {
  return lam < T(0) ? T(0) : (lam > T(1) ? T(1) : lam);
}

template <class T>
ZONOCUDA_HD T max_or_nan(T a, T b) {
  return (a > b || a != a) ? a : b;
}

/// `tied`: the slope is the minimum-area one, u / (u - l), whatever `slope` holds.
template <class T>
ZONOCUDA_HD Relaxation<T> relax_relu(T l, T u, T slope, bool tied) {
  if (is_dead(l, u)) {
    return {T(0), T(0)};
  }
  if (is_active(l, u)) {
    return {T(1), T(0)};
  }
  const T lam = tied ? u / (u - l) : clamp_slope(slope);
  return {lam, max_or_nan(-l * lam, u * (T(1) - lam)) / T(2)};
}

/// What theta is on the kink.
template <class T>
ZONOCUDA_HD T kink_choice(T u, T d, Kink kink, T grad_multiplier, T grad_offset) {
  switch (kink) {
    case Kink::left:
      return T(0);
    case Kink::right:
      return T(1);
    case Kink::even:
      return T(0.5);
    case Kink::min_norm: {
      const T theta = (u - T(2) * grad_multiplier / grad_offset) / d;
      const T clipped = theta < T(0) ? T(0) : (theta > T(1) ? T(1) : theta);
      return grad_offset != T(0) ? clipped : u / d;
    }
    default:
      return u / d;
  }
}

/// The weight of the side -l * lam in the derivative of mu: 1 above the kink, 0 below, chosen on it.
template <class T>
ZONOCUDA_HD T kink_weight(T l, T u, T lam, Kink kink, T tolerance, T grad_multiplier, T grad_offset) {
  const T d = u - l;
  const T distance = lam - u / d;
  const T chosen = kink_choice(u, d, kink, grad_multiplier, grad_offset);
  return distance > tolerance ? T(1) : (distance < -tolerance ? T(0) : chosen);
}

/// Gradients of (multiplier, offset) with respect to slope, l and u; `grad_*` are the incoming ones. The formulas are
/// evaluated on stable neurons too, and not used: selections vectorise, branches do not.
template <class T>
ZONOCUDA_HD RelaxationGrad<T> relax_relu_backward(T l, T u, T slope, bool tied, Kink kink, T tolerance,
                                                  T grad_multiplier, T grad_offset) {
  const bool stable = is_dead(l, u) | is_active(l, u);
  const T half = grad_offset / T(2);
  T grad_slope, grad_lower, grad_upper;
  if (tied) {
    const T d = u - l;
    const T lam = u / d;
    const T s = grad_multiplier / d;
    grad_slope = T(0);
    grad_lower = lam * s - lam * lam * half;
    grad_upper = (T(1) - lam) * s + (T(1) - lam) * (T(1) - lam) * half;
  } else {
    const T lam = clamp_slope(slope);
    const T theta = kink_weight(l, u, lam, kink, tolerance, grad_multiplier, grad_offset);
    const T free = grad_multiplier - half * (theta * l + (T(1) - theta) * u);
    grad_slope = lam == slope ? free : T(0);
    grad_lower = -theta * lam * half;
    grad_upper = (T(1) - theta) * (T(1) - lam) * half;
  }
  return {stable ? T(0) : grad_slope, stable ? T(0) : grad_lower, stable ? T(0) : grad_upper};
}

template <class T>
ZONOCUDA_HD T sign(T x) {
  return T((x > T(0)) - (x < T(0)));
}

}  // namespace zonocuda
