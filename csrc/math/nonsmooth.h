// Functions that are not differentiable everywhere, and the derivative that is chosen for them on a kink or a tie.
//
// A choice is linear in the incoming gradient g: where g is 0 the result is 0, and a weight of 0 passes nothing on,
// not even a NaN or an infinity. 16-bit numbers are computed with in float and rounded once.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "hostdevice.h"

namespace zonocuda {

/// What numbers of type T are computed with.
template <class T>
using Wide = std::conditional_t<sizeof(T) < sizeof(float), float, T>;

template <class W>
ZONOCUDA_HD W weigh(double weight, W g) {
  return weight == 0 ? W(0) : W(weight) * g;
}

// ---- one kink at 0 -------------------------------------------------------------------------------------------------

/// x for x > 0 and left * x for x < 0. The zeros of a relu or a leaky relu keep their sign; NaN is passed on.
template <class W>
ZONOCUDA_HD W kinked_line(W x, W left) {
  if (x < W(0)) {
    return left == W(0) ? W(0) : left * x;
  }
  return x == W(0) && left < W(0) ? W(0) : x;
}

/// Its derivative times g: `left` for x < 0, `at_zero` at 0, and 1 for x > 0 and NaN.
template <class W>
ZONOCUDA_HD W kinked_line_grad(W x, W g, W left, W at_zero) {
  const W weight = x < W(0) ? left : (x == W(0) ? at_zero : W(1));
  return weight == W(0) ? W(0) : weight * g;
}

// ---- the larger of two ---------------------------------------------------------------------------------------------

/// 1 where a is the larger one, -1 where b is, 0 on a tie. A NaN counts as larger than a number.
template <class W>
ZONOCUDA_HD int8_t larger_side(W a, W b) {
  const bool nan_a = a != a, nan_b = b != b;
  if (nan_a || nan_b) {
    return int8_t(int(nan_a) - int(nan_b));
  }
  return int8_t(int(a > b) - int(a < b));
}

template <class W>
struct SideShares {
  W a, b;
};

/// What a and b get of the gradient g: all of it for the larger one; `first` g and (1 - first) g on a tie.
template <class W>
ZONOCUDA_HD SideShares<W> side_shares(int8_t side, W g, W first) {
  const W of_a = first == W(0) ? W(0) : first * g;
  const W of_b = first == W(1) ? W(0) : (W(1) - first) * g;
  return {side > 0 ? g : (side == 0 ? of_a : W(0)), side < 0 ? g : (side == 0 ? of_b : W(0))};
}

// ---- the largest of many -------------------------------------------------------------------------------------------

/// What the elements that attain a maximum get of its gradient g on a tie of n: `first` g for the first, `last` g for
/// the last, and `even` g / n for each. (A rounded 1 / n would not add up to g.) A single winner gets g.
struct TieWeights {
  double first, last, even;
};

template <class W>
ZONOCUDA_HD W tie_share(W g, int64_t count, bool is_first, bool is_last, const TieWeights& weights) {
  if (count == 1) {
    return g;
  }
  W share = weigh(weights.even, g / W(count));
  if (is_first) {
    share += weigh(weights.first, g);
  }
  if (is_last) {
    share += weigh(weights.last, g);
  }
  return share;
}

constexpr int kWordBits = 32;  // winners in one word

ZONOCUDA_HD int64_t word_count(int64_t elements) { return elements / kWordBits + (elements % kWordBits != 0); }

/// The bits of word i that stand for one of `elements` elements. Those beyond count for nothing, whatever they hold.
ZONOCUDA_HD uint32_t valid_bits(int64_t elements, int64_t i) {
  const int64_t left = elements - i * kWordBits;
  return left >= kWordBits ? ~uint32_t(0) : (uint32_t(1) << left) - 1;
}

/// Which of `elements` elements win, a bit each; the words lie `stride` apart.
struct Winners {
  const int32_t* words;
  int64_t elements, stride;

  ZONOCUDA_HD int64_t count() const { return word_count(elements); }
  ZONOCUDA_HD uint32_t word(int64_t i) const { return uint32_t(words[i * stride]) & valid_bits(elements, i); }
  ZONOCUDA_HD bool has(int64_t element) const {
    return uint32_t(words[element / kWordBits * stride]) >> (element % kWordBits) & 1;
  }
};

ZONOCUDA_HD int bits_in(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

/// The lowest and the highest set bit of a word that is not 0.
ZONOCUDA_HD int lowest_bit(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __ffs(int(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}

ZONOCUDA_HD int highest_bit(uint32_t word) {
#ifdef __CUDA_ARCH__
  return 31 - __clz(int(word));
#else
  return 31 - __builtin_clz(word);
#endif
}

/// How many winners there are, and the first and the last of them (-1: none).
struct Tie {
  int64_t count, first, last;
};

ZONOCUDA_HD Tie read_tie(const Winners& w) {
  Tie tie{0, -1, -1};
  for (int64_t i = 0; i < w.count(); ++i) {
    const uint32_t word = w.word(i);
    if (word) {
      tie.count += bits_in(word);
      tie.first = tie.first < 0 ? i * kWordBits + lowest_bit(word) : tie.first;
      tie.last = i * kWordBits + highest_bit(word);
    }
  }
  return tie;
}

// ---- pooling windows -----------------------------------------------------------------------------------------------

/// One axis of a pooling: element t of window o lies at o * stride - padding + t * dilation.
struct PoolAxis {
  int64_t input, output, kernel, stride, padding, dilation;

  ZONOCUDA_HD int64_t at(int64_t window, int64_t element) const {
    return window * stride - padding + element * dilation;
  }
  ZONOCUDA_HD bool contains(int64_t p) const { return p >= 0 && p < input; }
  /// Whether all elements of a window lie in the image.
  ZONOCUDA_HD bool contains_window(int64_t window) const {
    return contains(at(window, 0)) && contains(at(window, kernel - 1));
  }
  /// The first and the last window that reach position p, if any does.
  ZONOCUDA_HD int64_t first_window(int64_t p) const {
    const int64_t reach = p + padding - (kernel - 1) * dilation;
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
  }
  ZONOCUDA_HD int64_t last_window(int64_t p) const {
    const int64_t window = (p + padding) / stride;
    return window < output - 1 ? window : output - 1;
  }
  /// The element of a window that lies at position p, or -1.
  ZONOCUDA_HD int64_t element(int64_t window, int64_t p) const {
    const int64_t distance = p + padding - window * stride;
    return distance < 0 || distance % dilation || distance / dilation >= kernel ? -1 : distance / dilation;
  }
};

/// The number of elements of [a, b, c, d]. Where one size is 0, the product of the others may be no number.
ZONOCUDA_HD int64_t count_of(int64_t a, int64_t b, int64_t c, int64_t d) {
  return a == 0 || b == 0 || c == 0 || d == 0 ? 0 : a * b * c * d;
}

/// Images [images, height, width, inner] and windows of kernel elements in the order of reading.
struct Pool {
  int64_t images, inner;
  PoolAxis y, x;

  ZONOCUDA_HD int64_t elements() const { return y.kernel * x.kernel; }
  ZONOCUDA_HD int64_t words() const { return word_count(elements()); }
  ZONOCUDA_HD int64_t outputs() const { return count_of(images, y.output, x.output, inner); }
  ZONOCUDA_HD int64_t inputs() const { return count_of(images, y.input, x.input, inner); }
};

}  // namespace zonocuda
