// Offsets into generators [batch, symbols, features]: always 64-bit.
#pragma once

#include <cstdint>

#include "hostdevice.h"

namespace zonocuda {

/// Offset of element [b, k, n] of a contiguous tensor [., symbols, features].
ZONOCUDA_HD int64_t generator_offset(int64_t b, int64_t k, int64_t n, int64_t symbols, int64_t features) {
  return (b * symbols + k) * features + n;
}

ZONOCUDA_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace zonocuda
