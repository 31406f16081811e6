// The shares of tied winners, for many words of winners at once.
#pragma once

#include "../math/nonsmooth.h"
#include "clones.h"

namespace zonocuda::cpu {

/// Whether all that get something get the same: the first alone, the last alone, or all of them.
inline bool is_one_rule(const TieWeights& w) {
  const auto zero_or_one = [](double weight) { return weight == 0 || weight == 1; };
  return zero_or_one(w.first) && zero_or_one(w.last) && zero_or_one(w.even) && w.first + w.last + w.even == 1;
}

/// How many bits are set, without an instruction for it, which vectors may lack.
ZONOCUDA_INLINE uint32_t count_bits(uint32_t word) {
  word -= word >> 1 & 0x55555555u;
  word = (word & 0x33333333u) + (word >> 2 & 0x33333333u);
  return ((word + (word >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

/// The highest set bit alone; of 0, 0.
ZONOCUDA_INLINE uint32_t highest_of(uint32_t word) {
  for (int shift = 1; shift < kWordBits; shift *= 2) {
    word |= word >> shift;
  }
  return word & ~(word >> 1);
}

}  // namespace zonocuda::cpu
