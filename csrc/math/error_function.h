// erf, erfc and the normal distribution in float64.
//
// Up to 0.75 erf(x) = x + x P(x^2). Beyond, erfc(w) = e^(-w^2) G(t) / (1 + 2 w): e^(w^2) erfc(w) (1 + 2 w) stays
// between 1 and 1.3 for all w >= 0, and is smooth in t = (w - 3) / (w + 3). w^2 is split into the square of w's leading
// bits, which is exact, and a small rest, so that e^(-w^2) keeps its relative accuracy far out.
#pragma once

#include "exponential.h"

namespace zonocuda {

constexpr double kErfSmall = 0.75;

/// erf(x) for |x| <= kErfSmall.
ZONOCUDA_HD double erf_small(double x) { return x + x * erf_rest_polynomial(x * x); }

/// e^-(half x^2) (1 + 2 w)^-1 G(w) 2^shift, for 0 <= x <= 39, half in {1/2, 1}, and w in [0, 28].
ZONOCUDA_HD double gauss_tail(double x, double half, double w, double shift) {
  const double leading = of_bits(bits_of(x) & ~uint64_t(0x7ffffff));
  const ExpParts e = exp_parts(-half * (leading * leading), half * ((x - leading) * (x + leading)));
  const double t = (w - 3.0) / (w + 3.0);
  return scale_by_power((1.0 + e.rest) * tail_polynomial(t) / (1.0 + (w + w)), e.k + shift);
}

ZONOCUDA_HD double erf_value(double x) {
  const double a = at_most(magnitude(x), 28.0);
  return with_sign(a < kErfSmall ? erf_small(a) : 1.0 - gauss_tail(a, 1.0, a, 0.0), x);
}

ZONOCUDA_HD double erfc_value(double x) {
  const double a = at_most(magnitude(x), 28.0);
  const double tail = gauss_tail(a, 1.0, a, 0.0);
  return a < kErfSmall ? 1.0 - erf_small(x) : (x < 0.0 ? 2.0 - tail : tail);
}

/// (1 + erf(x / sqrt(2))) / 2.
ZONOCUDA_HD double normal_cdf_value(double x) {
  const double a = at_most(magnitude(x), 39.0);
  const double w = a * kSqrtHalf;
  const double tail = gauss_tail(a, 0.5, w, -1.0);
  const double inner = 0.5 + 0.5 * with_sign(erf_small(w), x);
  return w < kErfSmall ? inner : (x < 0.0 ? tail : 1.0 - tail);
}

}  // namespace zonocuda
