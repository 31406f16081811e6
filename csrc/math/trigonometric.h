// sin, cos and atan in float64.
//
// sin, cos: x = k pi / 2 + r. pi / 2 is held in three parts; k times the first two is exact for |x| <= 2^20, and so is
// the first difference; what the second one loses is kept. Beyond 2^20 they are NaN, and their bounds are -1 and 1.
// (The method: Cody & Waite 1980, with an exact difference more.)
//
// atan: |x| is taken to |t| <= tan(pi/8) by t = (a - 1) / (a + 1) or t = -1 / a, which add pi / 4 or pi / 2.
#pragma once

#include "bits.h"
#include "constants.h"

namespace zonocuda {

constexpr double kLargestAngle = 0x1p20;

/// sin(x + turns pi / 2), for |x| <= kLargestAngle.
ZONOCUDA_HD double sine_of(double x, uint64_t turns) {
  const double shifted = x * kTwoOverPi + kShift;
  const uint64_t quadrant = bits_of(shifted) + turns;
  const double k = shifted - kShift;
  const ExactSum difference = exact_sum(x - k * kHalfPi1, -(k * kHalfPi2));
  const double r = difference.high + (difference.low - k * kHalfPi3);
  const double z = r * r;
  const double sine = r + r * (z * sin_rest_polynomial(z));
  const double cosine = (1.0 - 0.5 * z) + (z * z) * cos_rest_polynomial(z);
  const double value = quadrant & 1 ? cosine : sine;
  return of_bits(bits_of(value) ^ (quadrant << 62 & kSignBit));
}

ZONOCUDA_HD double sin_value(double x) {
  const double value = sine_of(x, 0);
  return magnitude(x) <= kLargestAngle ? value : kNan;
}

ZONOCUDA_HD double cos_value(double x) {
  const double value = sine_of(x, 1);
  return magnitude(x) <= kLargestAngle ? value : kNan;
}

ZONOCUDA_HD double atan_value(double x) {
  const double a = magnitude(x);
  const bool low = a < 0.4140625, high = a > 2.4140625;
  const double numerator = low ? a : (high ? -1.0 : a - 1.0);
  const double denominator = low ? 1.0 : (high ? a : a + 1.0);
  const double t = numerator / denominator;
  const double z = t * t;
  const double turned = t + t * (z * atan_rest_polynomial(z));
  return with_sign(low ? turned : (high ? kHalfPi : kQuarterPi) + turned, x);
}

}  // namespace zonocuda
