// Written by python -m tests.elementary.polynomials. The errors of these polynomials are proven by
// tests/elementary/approximation.py.
#pragma once

#include "hostdevice.h"

namespace zonocuda {

/// c0 + x (c1 + x (c2 + ...)), by Horner's rule.
template <class... C>
ZONOCUDA_HD double horner(double x, double first, C... rest) {
  if constexpr (sizeof...(rest) == 0) {
    return first;
  } else {
    return first + x * horner(x, rest...);
  }
}

/// 40 bits of log 2, so that k times it is exact for |k| < 2^13; kLn2Low: what is left.
constexpr double kLn2High = 0x1.62e42fefa2000p-1;
constexpr double kLn2Low = 0x1.9ef35793c7673p-41;
/// 33 bits of pi / 2, then 33 more, then what is left: k times the first two is exact for k < 2^20.
constexpr double kHalfPi1 = 0x1.921fb54400000p+0;
constexpr double kHalfPi2 = 0x1.0b4611a600000p-34;
constexpr double kHalfPi3 = 0x1.3198a2e037073p-69;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kQuarterPi = 0x1.921fb54442d18p-1;
constexpr double kHalfPi = 0x1.921fb54442d18p+0;
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
constexpr double kTwoOverSqrtPi = 0x1.20dd750429b6dp+0;
constexpr double kNormalDensity = 0x1.9884533d43651p-2;
/// 2 sqrt(2 / pi); kGeluCubic: 0.044715 times that.
constexpr double kGeluLinear = 0x1.9884533d43651p+0;
constexpr double kGeluCubic = 0x1.2444f2a4d8b4bp-4;
/// as torch.nn.SELU has it; kSeluNegative: times its alpha.
constexpr double kSeluScale = 0x1.0cfabd6a91132p+0;
constexpr double kSeluNegative = 0x1.c212cc640f031p+0;

// clang-format off
/// (e^r - 1 - r) / r^2 on |r| <= 0.3467.
ZONOCUDA_HD double exp_rest_polynomial(double x) {
  return horner(x, 0x1.0000000000000p-1,
                0x1.5555555555557p-3,
                0x1.5555555555556p-5,
                0x1.11111111100cep-7,
                0x1.6c16c16c16148p-10,
                0x1.a01a01abef7b2p-13,
                0x1.a01a01a77e16bp-16,
                0x1.71de0219d9c0dp-19,
                0x1.27e4d9a7b9ed3p-22,
                0x1.af4e1adb84d4fp-26,
                0x1.1f763c51af418p-29);
}
// clang-format on

// clang-format off
/// (2 atanh(s) / s - 2) / s^2 in z = s^2 on |s| <= 0.1717.
ZONOCUDA_HD double log_rest_polynomial(double x) {
  return horner(x, 0x1.5555555555555p-1,
                0x1.9999999999a39p-2,
                0x1.24924924768ccp-2,
                0x1.c71c7201ca461p-3,
                0x1.745cf8d558977p-3,
                0x1.3b1c3f6063f3cp-3,
                0x1.0fbd899eaf6e0p-3,
                0x1.0c0e8f3c98b3ep-3);
}
// clang-format on

// clang-format off
/// erf(x) / x - 1 in z = x^2 on |x| <= 0.7503.
ZONOCUDA_HD double erf_rest_polynomial(double x) {
  return horner(x, 0x1.06eba8214db69p-3,
                -0x1.812746b0379e7p-2,
                0x1.ce2f21a042bc6p-4,
                -0x1.b82ce31287cc9p-6,
                0x1.565bcd0e2bf9cp-8,
                -0x1.c02db3ec8188fp-11,
                0x1.f9a32301ad9efp-14,
                -0x1.f4d1d59651c9bp-17,
                0x1.b9dada1c24481p-20,
                -0x1.5ec06e5067912p-23,
                0x1.ef3c3511a7dd8p-27,
                -0x1.0527195772f5fp-30);
}
// clang-format on

// clang-format off
/// e^(w^2) erfc(w) (1 + 2 w) in t = (w - 3) / (w + 3) on 0.74 <= w <= 28.1.
ZONOCUDA_HD double tail_polynomial(double x) {
  return horner(x, 0x1.40c522d7e4987p+0,
                -0x1.15c084bb9e8f0p-3,
                -0x1.85a15c58aa28dp-5,
                0x1.098366a5b467bp-3,
                -0x1.e88b803a504b9p-4,
                0x1.17ca2877ed7fcp-4,
                -0x1.8574c408c6d9ap-6,
                0x1.4b884e5539685p-9,
                0x1.ef1bda9a0fa7bp-10,
                -0x1.98db54c6aba67p-11,
                -0x1.b9110ee12d0edp-14,
                0x1.065a9c82a9084p-13,
                0x1.4baf6edebf9e1p-18,
                -0x1.514694e6dd2a4p-16,
                -0x1.7bf34bfb85f96p-21,
                0x1.d2934ec3ea042p-19,
                0x1.4822f159ebe7bp-22,
                -0x1.49d39938ca926p-21,
                -0x1.47b8e34984640p-24,
                0x1.7816487210f72p-24);
}
// clang-format on

// clang-format off
/// (sin(r) / r - 1) / r^2 in z = r^2 on |r| <= 0.786.
ZONOCUDA_HD double sin_rest_polynomial(double x) {
  return horner(x, -0x1.5555555555555p-3,
                0x1.1111111111110p-7,
                -0x1.a01a01a01992ap-13,
                0x1.71de3a545ef0dp-19,
                -0x1.ae64540feaf6dp-26,
                0x1.61217cc913f00p-33,
                -0x1.ab167f4fb1867p-41);
}
// clang-format on

// clang-format off
/// (cos(r) - 1 + r^2 / 2) / r^4 in z = r^2 on |r| <= 0.786.
ZONOCUDA_HD double cos_rest_polynomial(double x) {
  return horner(x, 0x1.5555555555555p-5,
                -0x1.6c16c16c16962p-10,
                0x1.a01a019f4d709p-16,
                -0x1.27e4fa163c142p-22,
                0x1.1eeb673a2e0cap-29,
                -0x1.907c6d159beaap-37);
}
// clang-format on

// clang-format off
/// (atan(t) / t - 1) / t^2 in z = t^2 on |t| <= 0.4144.
ZONOCUDA_HD double atan_rest_polynomial(double x) {
  return horner(x, -0x1.5555555555555p-2,
                0x1.9999999999997p-3,
                -0x1.24924924920a4p-3,
                0x1.c71c71c6dd3c2p-4,
                -0x1.745d173546603p-4,
                0x1.3b13aea5b2a7ep-4,
                -0x1.1110ce8aaecc2p-4,
                0x1.e1d8df21a2fe3p-5,
                -0x1.aebcb8c91edb4p-5,
                0x1.829a528b25b36p-5,
                -0x1.5031e808378e3p-5,
                0x1.f5bf76274f183p-6,
                -0x1.c7b1788fe6a94p-7);
}
// clang-format on

}  // namespace zonocuda
