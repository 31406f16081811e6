// float64 numbers by their bits: powers of two, signs, nearest integers. No function of a library is called.
#pragma once

#include <cstdint>

#include "hostdevice.h"

namespace zonocuda {

ZONOCUDA_HD uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
ZONOCUDA_HD double of_bits(uint64_t bits) { return __builtin_bit_cast(double, bits); }

constexpr uint64_t kSignBit = uint64_t(1) << 63;
constexpr double kInfinity = __builtin_huge_val();
constexpr double kNan = __builtin_nan("");

ZONOCUDA_HD double magnitude(double x) { return of_bits(bits_of(x) & ~kSignBit); }

/// x >= 0 with the sign of `sign`.
ZONOCUDA_HD double with_sign(double x, double sign) { return of_bits(bits_of(x) | (bits_of(sign) & kSignBit)); }

/// x limited to at most or at least a number; NaN stays NaN.
ZONOCUDA_HD double at_most(double x, double limit) { return x > limit ? limit : x; }
ZONOCUDA_HD double at_least(double x, double limit) { return x < limit ? limit : x; }

/// Correctly rounded, as IEEE 754 asks.
ZONOCUDA_HD double square_root(double x) {
#ifdef __CUDA_ARCH__
  return __dsqrt_rn(x);
#else
  return __builtin_sqrt(x);
#endif
}

/// Added to a number of magnitude below 2^51, it leaves no bits behind the point: the sum holds the nearest integer (of
/// two, the even one) in its low bits, as two's complement.
constexpr double kShift = 0x1.8p52;

ZONOCUDA_HD double nearest_integer(double x) { return (x + kShift) - kShift; }

/// 2^k for an integer -1022 <= k <= 1023.
ZONOCUDA_HD double power_of_two(double k) { return of_bits((bits_of(k + kShift) + 1023) << 52); }

/// 2^k x for an integer -2044 <= k <= 2046 and x of ordinary size: exact, but for one rounding where the result is
/// subnormal.
ZONOCUDA_HD double scale_by_power(double x, double k) {
  const double half = nearest_integer(k * 0.5);
  return x * power_of_two(half) * power_of_two(k - half);
}

/// The sum of two numbers, rounded, and what the rounding has lost: high + low = a + b exactly (Knuth's two-sum).
struct ExactSum {
  double high, low;
};

ZONOCUDA_HD ExactSum exact_sum(double a, double b) {
  const double high = a + b;
  const double of_b = high - a;
  return {high, (a - (high - of_b)) + (b - of_b)};
}

/// x = 2^k m with m in [sqrt(1/2), sqrt(2)), for positive and finite x.
struct Binary {
  double k, m;
};

ZONOCUDA_HD Binary split_binary(double x) {
  constexpr uint64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd, kBias = uint64_t(1023) << 52;
  constexpr uint64_t kInteger = 0x4330000000000000;  // 2^52: its low bits are an integer's
  const bool subnormal = x < 0x1p-1022;
  const uint64_t bits = bits_of(subnormal ? x * 0x1p54 : x);
  const uint64_t exponent = (bits - kSqrtHalfBits + kBias) >> 52;  // k + 1023
  const double k = (of_bits(exponent | kInteger) - 0x1p52) - (subnormal ? 1077.0 : 1023.0);
  return {k, of_bits(bits - (exponent << 52) + kBias)};
}

}  // namespace zonocuda
