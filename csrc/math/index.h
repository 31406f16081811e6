// Offsets into tensors: 64-bit, or 32-bit in kernels that are built for both, where every number that they compute
// fits.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "hostdevice.h"

namespace zonocuda {

/// Offset of element [b, k, n] of a contiguous tensor [., symbols, features].
ZONOCUDA_HD int64_t generator_offset(int64_t b, int64_t k, int64_t n, int64_t symbols, int64_t features) {
  return (b * symbols + k) * features + n;
}

template <class A, class B>
ZONOCUDA_HD std::common_type_t<A, B> ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

/// 32-bit numbers serve where all that count something lie below this: a step of a loop beyond a count still fits.
constexpr int64_t kNarrowLimit = int64_t(1) << 30;

/// Whether all these numbers lie below the limit.
inline bool are_narrow(std::initializer_list<int64_t> numbers, int64_t limit = kNarrowLimit) {
  bool narrow = true;
  for (int64_t number : numbers) {
    narrow = narrow && number < limit && -number < limit;
  }
  return narrow;
}

/// Calls f(I{}) with the type of the indices.
template <class F>
void with_index(bool narrow, F f) {
  narrow ? f(int32_t{}) : f(int64_t{});
}

/// Whether 0 <= x < n, for n >= 0: one comparison.
template <class I>
ZONOCUDA_HD bool is_below(I x, I n) {
  using Unsigned = std::make_unsigned_t<I>;
  return static_cast<Unsigned>(x) < static_cast<Unsigned>(n);
}

}  // namespace zonocuda
