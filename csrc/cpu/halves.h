// Conversions of 16-bit numbers in plain arithmetic, which a compiler turns into vector instructions of any machine.
#pragma once

#include <cstdint>
#include <cstring>

#include "../math/nonsmooth.h"
#include "clones.h"

namespace zonocuda::cpu {

template <class To, class From>
ZONOCUDA_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

/// What a conditional expression gives, without a branch.
ZONOCUDA_INLINE uint32_t select(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0u - uint32_t(condition);
  return (yes & mask) | (no & ~mask);
}

/// The value in the type that is computed with.
template <class T>
ZONOCUDA_INLINE Wide<T> widen(T x) {
  if constexpr (std::is_same_v<T, torch::headeronly::Half>) {
    const uint32_t magnitude = x.x & 0x7fffu, sign = uint32_t(x.x & 0x8000u) << 16;
    const float scaled = bits_as<float>(magnitude << 13) * 0x1p112f;  // exact, subnormal numbers included
    const uint32_t bits = bits_as<uint32_t>(scaled) | (magnitude >= 0x7c00u ? 0x7f800000u : 0u);
    return bits_as<float>(bits | sign);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    return bits_as<float>(uint32_t(x.x) << 16);
  } else {
    return x;
  }
}

/// The nearest number of type T, on a tie the even one. A NaN stays one.
template <class T>
ZONOCUDA_INLINE T narrow(Wide<T> value) {
  if constexpr (std::is_same_v<T, torch::headeronly::Half>) {
    const uint32_t bits = bits_as<uint32_t>(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    // below 2^-14, in units of 2^-24: the sum with 0.5 rounds to them
    const uint32_t small = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    const uint32_t large = 0x7c00u | (select(magnitude > 0x7f800000u, 0x200u, 0u));
    const uint32_t finite = select(magnitude < 0x38800000u, small, normal);
    const uint32_t rounded = select(magnitude < 0x47800000u, finite, large);
    return T(uint16_t(rounded | sign), T::from_bits());
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return T(uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded), T::from_bits());
  } else {
    return value;
  }
}

}  // namespace zonocuda::cpu
