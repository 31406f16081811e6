// The checks on the arguments of `elementary`, and its numbers as the kernels have them.
#pragma once

#include "../math/elementary.h"
#include "check.h"
#include "nonsmooth_arguments.h"

namespace zonocuda {

constexpr int64_t kLargestPower = 1024;

inline Function check_function(const char* op, const Tensor& x, int64_t function, double parameter) {
  check_same(op, "x", x, x);
  STD_TORCH_CHECK(function >= 0 && function < kFunctions, op, ": function must be one of 0 to ", kFunctions - 1,
                  ", got ", function);
  const auto f = static_cast<Function>(function);
  if (f == Function::power_) {
    STD_TORCH_CHECK(parameter >= 1 && parameter <= kLargestPower && parameter == double(int64_t(parameter)), op,
                    ": the exponent must be an integer from 1 to ", kLargestPower, ", got ", parameter);
  }
  if (f == Function::elu_ || f == Function::celu_) {
    STD_TORCH_CHECK(parameter >= 0x1p-500 && parameter <= 0x1p500, op,
                    ": alpha must be a positive number from 2^-500 to 2^500, got ", parameter);
  }
  return f;
}

inline Rounding check_rounding(const char* op, int64_t rounding) {
  STD_TORCH_CHECK(rounding >= 0 && rounding <= 2, op, ": rounding must be 0 (nearest), 1 (down) or 2 (up), got ",
                  rounding);
  return static_cast<Rounding>(rounding);
}

}  // namespace zonocuda
