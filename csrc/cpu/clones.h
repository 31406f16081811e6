// Marks a loop that is compiled for several instruction sets; the loader picks the widest that the machine has. Every
// clone rounds alike, because contraction is off in all of them.
#pragma once

#include "../common/stable.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define ZONOCUDA_LOOP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ZONOCUDA_LOOP_CLONES
#endif

#define ZONOCUDA_INLINE __attribute__((always_inline)) inline  // into a clone, to be compiled for its instructions

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
