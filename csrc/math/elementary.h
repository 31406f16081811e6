// The elementary functions by number: value, proven bounds, derivative.
//
// Where f(x) is defined and x is finite, lower <= f(x) <= upper. The values are within `units` times 2^-53 of f(x),
// relatively, beyond 2^-1073 and `absolute`; docs/math.md states it, and tests/elementary proves it.
#pragma once

#include "activations.h"
#include "trigonometric.h"

namespace zonocuda {

enum class Rounding : int64_t { nearest = 0, down = 1, up = 2 };

/// What a function gives for one number.
struct Enclosed {
  double value, lower, upper;
};

constexpr double kUnit = 0x1p-53;
constexpr double kHalfPiAbove = 0x1.921fb54442d19p+0;
constexpr double kTiny = 0x1p-1072;
/// What a product of a number with a factor below 1, and nothing else, can lose to underflow, for |x| <= 750.
constexpr double kGatedTiny = 0x1p-1062;
/// (1 - 2^-37) times the largest number: below f(x) where its value has overflowed.
constexpr double kAlmostLargest = 0x1.fffffffff0000p+1023;

/// For |value - f| <= units kUnit |f| + absolute + 2^-1073 and floor <= f <= ceiling, units <= 5000. Two units more pay
/// for the division by 1 - units kUnit, for the roundings of the error, and for that of the last difference; kTiny for
/// 2^-1073 and their underflow.
ZONOCUDA_HD Enclosed enclose(double value, double units, double absolute = 0.0, double floor = -kInfinity,
                             double ceiling = kInfinity) {
  const double size = at_most(magnitude(value), kAlmostLargest);
  const double error = size * ((units + 2.0) * kUnit) + (absolute + kTiny);
  const double lower = at_most(value, kAlmostLargest) - error, upper = at_least(value, -kAlmostLargest) + error;
  return {value, at_least(lower, floor), at_most(upper, ceiling)};
}

/// The same without bounds where the argument is a pole.
ZONOCUDA_HD Enclosed without_bounds_at(bool pole, const Enclosed& e) {
  return {e.value, pole ? kNan : e.lower, pole ? kNan : e.upper};
}

/// The value itself for both bounds where it is f(x).
ZONOCUDA_HD Enclosed exact_where(bool exact, const Enclosed& e) {
  return {e.value, exact ? e.value : e.lower, exact ? e.value : e.upper};
}

/// sin or cos: beyond kLargestAngle all that is known is -1 <= f <= 1.
ZONOCUDA_HD Enclosed enclose_wave(double x, double value) {
  const Enclosed e = enclose(value, 3.0, magnitude(x) < 0.75 ? 0.0 : 0x1p-90, -1.0, 1.0);
  const bool unknown = (magnitude(x) > kLargestAngle) & (magnitude(x) < kInfinity);
  return {e.value, unknown ? -1.0 : e.lower, unknown ? 1.0 : e.upper};
}

// One line a function: NAME(x, p), its value and bounds, and its derivative. p: alpha of elu and celu, n of power.
// The derivatives have no theorem.
#define ZONOCUDA_FOR_EACH_FUNCTION(MACRO)                                                                             \
  MACRO(0, exp, enclose(exp_value(x), 2.0, 0.0, 0.0), exp_value(x))                                                   \
  MACRO(1, expm1, exact_where(x == 0.0, enclose(expm1_value(x), 4.0, 0.0, -1.0)), exp_value(x))                       \
  MACRO(2, log, without_bounds_at(x == 0.0, enclose(log_value(x), 5.0)), 1.0 / x)                                     \
  MACRO(3, log1p, exact_where(x == 0.0, without_bounds_at(x == -1.0, enclose(log1p_value(x), 6.0))), 1.0 / (1.0 + x)) \
  MACRO(4, tanh, exact_where(x == 0.0, enclose(tanh_value(x), 8.0, 0.0, -1.0, 1.0)),                                  \
        (1.0 - tanh_value(x)) * (1.0 + tanh_value(x)))                                                                \
  MACRO(5, sigmoid, enclose(sigmoid_value(x), 5.0, 0.0, 0.0, 1.0), sigmoid_value(x) * sigmoid_value(-x))              \
  MACRO(6, erf, exact_where(x == 0.0, enclose(erf_value(x), 4.0, 0.0, -1.0, 1.0)), erf_slope(x))                      \
  MACRO(7, erfc, enclose(erfc_value(x), 8.0, 0.0, 0.0, 2.0), -erf_slope(x))                                           \
  MACRO(8, normal_cdf, enclose(normal_cdf_value(x), 11.0, 0.0, 0.0, 1.0), normal_density(x))                          \
  MACRO(9, softplus, enclose(softplus_value(x), 8.0, kTiny, 0.0), sigmoid_value(x))                                   \
  MACRO(10, silu, exact_where(x == 0.0, enclose(silu_value(x), 6.0, kGatedTiny)), silu_slope(x))                      \
  MACRO(11, gelu, exact_where(x == 0.0, enclose(gelu_value(x), 12.0, kGatedTiny)),                                    \
        normal_cdf_value(x) + x * normal_density(x))                                                                  \
  MACRO(12, gelu_tanh, exact_where(x == 0.0, enclose_gelu_tanh(x)), gelu_tanh_slope(x))                               \
  MACRO(13, elu, exact_where(x >= 0.0, enclose(elu_value(x, p), 5.0, (p + 1.0) * kTiny)),                             \
        x > 0.0 ? 1.0 : p * exp_value(x))                                                                             \
  MACRO(14, selu, exact_where(x == 0.0, enclose(selu_value(x), 6.0, kTiny)),                                          \
        x > 0.0 ? kSeluScale : kSeluNegative * exp_value(x))                                                          \
  MACRO(15, celu, exact_where(x >= 0.0, enclose(celu_value(x, p), 6.0, (p + 1.0) * kTiny)),                           \
        x > 0.0 ? 1.0 : exp_value(x / p))                                                                             \
  MACRO(16, mish, exact_where(x == 0.0, enclose(mish_value(x), 7.0, kGatedTiny)), mish_slope(x))                      \
  MACRO(17, softsign, exact_where(x == 0.0, enclose(softsign_value(x), 2.0, 0.0, -1.0, 1.0)),                         \
        1.0 / ((1.0 + magnitude(x)) * (1.0 + magnitude(x))))                                                          \
  MACRO(18, hardswish,                                                                                                \
        exact_where((magnitude(x) >= 3.0) | (x == 0.0), enclose(hardswish_value(x), 3.0, kTiny, -0.375)),             \
        hardswish_slope(x))                                                                                           \
  MACRO(19, sin, exact_where(x == 0.0, enclose_wave(x, sin_value(x))), cos_value(x))                                  \
  MACRO(20, cos, enclose_wave(x, cos_value(x)), -sin_value(x))                                                        \
  MACRO(21, atan, exact_where(x == 0.0, enclose(atan_value(x), 5.0, 0.0, -kHalfPiAbove, kHalfPiAbove)),               \
        1.0 / (1.0 + x * x))                                                                                          \
  MACRO(22, reciprocal, without_bounds_at(x == 0.0, enclose(1.0 / x, 1.0)), -1.0 / (x * x))                           \
  MACRO(23, sqrt, exact_where(x == 0.0, enclose(square_root(x), 1.0, 0.0, 0.0)), 0.5 / square_root(x))                \
  MACRO(24, rsqrt, without_bounds_at(x == 0.0, enclose(1.0 / square_root(x), 2.0)), -0.5 / (x * square_root(x)))      \
  MACRO(25, power, exact_where(x == 0.0, enclose(power_value(x, int64_t(p)), p, 0x1p-1066)), power_slope(x, p))

/// The argument's relative error of 5 units costs |argument| times as much where sigmoid is an exponential.
ZONOCUDA_HD Enclosed enclose_gelu_tanh(double x) {
  const double steep = x < 0.0 ? at_most(magnitude(gelu_tanh_argument(x)), 800.0) : 1.0;
  return enclose(gelu_tanh_value(x), 6.0 + 5.0 * steep, kGatedTiny);
}

ZONOCUDA_HD double erf_slope(double x) { return kTwoOverSqrtPi * exp_value(-(x * x)); }

ZONOCUDA_HD double normal_density(double x) { return kNormalDensity * exp_value(-0.5 * (x * x)); }

ZONOCUDA_HD double power_slope(double x, double n) { return n * power_value(x, int64_t(n) - 1); }

ZONOCUDA_HD double silu_slope(double x) { return sigmoid_value(x) * (1.0 + x * sigmoid_value(-x)); }

/// Beyond 100 it is 0 or 1.
ZONOCUDA_HD double gelu_tanh_slope(double any) {
  const double x = at_most(at_least(any, -100.0), 100.0);
  const double y = gelu_tanh_argument(x);
  const double inner = x * (kGeluLinear + 3.0 * kGeluCubic * (x * x));
  return sigmoid_value(y) * (1.0 + inner * sigmoid_value(-y));
}

/// t + x (1 - t^2) sigmoid(x) with t = tanh(softplus(x)).
ZONOCUDA_HD double mish_slope(double x) {
  const double t = mish_factor(x);
  return t + x * ((1.0 - t) * (1.0 + t)) * sigmoid_value(x);
}

/// At the kinks as torch has it: 0 at -3, 3/2 at 3.
ZONOCUDA_HD double hardswish_slope(double x) { return x <= -3.0 ? 0.0 : (x > 3.0 ? 1.0 : (x + x + 3.0) / 6.0); }

enum class Function : int64_t {
#define ZONOCUDA_NAME(number, name, enclosed, slope) name##_ = number,
  ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_NAME)
#undef ZONOCUDA_NAME
};

constexpr int64_t kFunctions = 26;

ZONOCUDA_HD double rounded_value(const Enclosed& e, Rounding rounding) {
  return rounding == Rounding::nearest ? e.value : (rounding == Rounding::down ? e.lower : e.upper);
}

/// float32 or float64 next to x in the direction of the rounding.
ZONOCUDA_HD void store_rounded(double x, Rounding, double* out) { *out = x; }

ZONOCUDA_HD void store_rounded(double x, Rounding rounding, float* out) {
  const float nearest = static_cast<float>(x);
  const uint32_t bits = __builtin_bit_cast(uint32_t, nearest);
  const bool zero = bits << 1 == 0, negative = bits >> 31;
  const uint32_t outward = bits + 1, inward = bits - 1;  // for numbers that are not 0: away from 0 and to it
  const uint32_t below = zero ? 0x80000001u : (negative ? outward : inward);
  const uint32_t above = zero ? 0x00000001u : (negative ? inward : outward);
  const bool moves_down = (rounding == Rounding::down) & (nearest > x);
  const bool moves_up = (rounding == Rounding::up) & (nearest < x);
  *out = __builtin_bit_cast(float, moves_down ? below : (moves_up ? above : bits));
}

}  // namespace zonocuda
