// What the kernels of four dtypes share: 16-bit numbers as the machine converts them, and the list of dtypes.
#pragma once

#include "../common/stable.h"
#include "targets.h"

namespace zonocuda::cpu {

/// A 16-bit number whose conversions g++ makes the machine's own instructions of, where it can.
template <class T>
struct Machine {
  using type = T;
};
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
template <>
struct Machine<torch::headeronly::Half> {
  using type = _Float16;
};
#endif

}  // namespace zonocuda::cpu

/// Calls MACRO(T) for every dtype of the ops with a chosen derivative.
#define ZONOCUDA_FOR_EACH_DTYPE(MACRO) \
  MACRO(float)                         \
  MACRO(double)                        \
  MACRO(torch::headeronly::Half)       \
  MACRO(torch::headeronly::BFloat16)
