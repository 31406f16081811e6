// The logarithm in float64.
//
// x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); then log(1 + f) = 2 atanh(s) with s = f / (2 + f), and a
// polynomial in s^2. f is exact for log; for log1p it takes up what 1 + x has lost, and is x itself for k = 0.
#pragma once

#include "bits.h"
#include "constants.h"

namespace zonocuda {

/// log(2^k (1 + f)).
ZONOCUDA_HD double log_of(double k, double f) {
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double fraction = (s + s) + s * (z * log_rest_polynomial(z));
  return k * kLn2High + (k * kLn2Low + fraction);
}

/// What a logarithm is where its argument is not positive and finite: -inf at 0, NaN below, itself at inf and NaN.
ZONOCUDA_HD double log_or_special(double value, double argument) {
  const double upper = argument < kInfinity ? value : argument;
  return argument > 0.0 ? upper : (argument == 0.0 ? -kInfinity : kNan);
}

ZONOCUDA_HD double log_value(double x) {
  const Binary b = split_binary(x);
  return log_or_special(log_of(b.k, b.m - 1.0), x);
}

ZONOCUDA_HD double log1p_value(double x) {
  const ExactSum sum = exact_sum(1.0, x);
  const Binary b = split_binary(sum.high);
  const double f = (b.m - 1.0) + sum.low * power_of_two(-at_most(b.k, 100.0));
  return log_or_special(log_of(b.k, f), sum.high);
}

}  // namespace zonocuda
