// The exponential and what is made of it, in float64.
//
// x = k ln 2 + r with an integer k and |r| <= 0.3467. k times kLn2High is exact, and so is its difference from x; then
// e^x = 2^k (1 + rest) with rest = e^r - 1 from a polynomial. For k = 0 r is x itself, so that e^x - 1 keeps its
// relative accuracy near 0. (The method: Cody & Waite, Software Manual for the Elementary Functions, 1980.)
//
// Errors are stated in docs/math.md, in units of 2^-53, and proven by tests/elementary.
#pragma once

#include "bits.h"
#include "constants.h"

namespace zonocuda {

struct ExpParts {
  double k, rest;
};

/// e^(x - minus) for |x| <= 1100 and 0 <= minus < 2^-13; or for NaN.
ZONOCUDA_HD ExpParts exp_parts(double x, double minus = 0.0) {
  const double k = nearest_integer(x * kLog2E);
  const double r = ((x - k * kLn2High) - k * kLn2Low) - minus;
  return {k, r + r * r * exp_rest_polynomial(r)};
}

ZONOCUDA_HD double exp_value(double x) {
  const ExpParts e = exp_parts(at_most(at_least(x, -746.0), 710.0));
  return scale_by_power(1.0 + e.rest, e.k);
}

/// 2^k ((1 - 2^-k) + rest): below x = -40 it is -1, and for k > 60 the 2^-k does not matter.
ZONOCUDA_HD double expm1_value(double x) {
  const ExpParts e = exp_parts(at_most(at_least(x, -40.0), 710.0));
  const double one = 1.0 - power_of_two(-at_most(e.k, 60.0));
  return scale_by_power(one + e.rest, e.k);
}

/// With e = e^(2|x|) - 1: e / (e + 2) below 1/2, and 1 - 2 / (e + 2) from there on; from |x| = 22 on it is 1.
ZONOCUDA_HD double tanh_value(double x) {
  const double a = at_most(magnitude(x), 22.0);
  const double e = expm1_value(a + a);
  const bool small = a < 0.5;
  const double quotient = (small ? e : 2.0) / (e + 2.0);
  return with_sign(small ? quotient : 1.0 - quotient, x);
}

/// With t = e^-|x|: 1 / (1 + t), or t / (1 + t) for x < 0.
ZONOCUDA_HD double sigmoid_value(double x) {
  const double t = exp_value(-magnitude(x));
  return (x < 0.0 ? t : 1.0) / (1.0 + t);
}

}  // namespace zonocuda
