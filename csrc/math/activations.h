// The smooth activations of neural networks in float64, of the elementary functions. All of them multiply, divide and
// add numbers of one sign where they can, so that relative errors add up and are not amplified.
#pragma once

#include "error_function.h"
#include "exponential.h"
#include "logarithm.h"

namespace zonocuda {

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|).
ZONOCUDA_HD double softplus_value(double x) { return (x > 0.0 ? x : 0.0) + log1p_value(exp_value(-magnitude(x))); }

ZONOCUDA_HD double silu_value(double x) { return x * sigmoid_value(x); }

ZONOCUDA_HD double gelu_value(double x) { return x * normal_cdf_value(x); }

/// y with x (1 + tanh(y / 2)) / 2 = x sigmoid(y): 2 sqrt(2 / pi) (x + 0.044715 x^3).
ZONOCUDA_HD double gelu_tanh_argument(double x) { return x * (kGeluLinear + kGeluCubic * (x * x)); }

ZONOCUDA_HD double gelu_tanh_value(double x) { return x * sigmoid_value(gelu_tanh_argument(x)); }

ZONOCUDA_HD double elu_value(double x, double alpha) { return x > 0.0 ? x : alpha * expm1_value(x); }

ZONOCUDA_HD double selu_value(double x) { return x > 0.0 ? kSeluScale * x : kSeluNegative * expm1_value(x); }

ZONOCUDA_HD double celu_value(double x, double alpha) { return x > 0.0 ? x : alpha * expm1_value(x / alpha); }

/// tanh(log(1 + w)) = n / (n + 2) with n = w (w + 2) and w = e^x; from x = 40 on it is 1.
ZONOCUDA_HD double mish_factor(double x) {
  const double w = exp_value(at_most(x, 40.0));
  const double n = w * (w + 2.0);
  return n / (n + 2.0);
}

ZONOCUDA_HD double mish_value(double x) { return x * mish_factor(x); }

ZONOCUDA_HD double softsign_value(double x) { return x / (1.0 + magnitude(x)); }

/// x max(0, min(6, x + 3)) / 6: near -3, where digits cancel, x + 3 is exact.
ZONOCUDA_HD double hardswish_value(double x) { return x * (at_most(at_least(x + 3.0, 0.0), 6.0) / 6.0); }

/// x^n for an integer n >= 0, by squaring: n - 1 roundings at most have a part in it.
ZONOCUDA_HD double power_value(double x, int64_t n) {
  double result = 1.0;
  for (double square = x; n > 0; n >>= 1) {
    result = n & 1 ? result * square : result;
    square = n > 1 ? square * square : square;
  }
  return result;
}

}  // namespace zonocuda
