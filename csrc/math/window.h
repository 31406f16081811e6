// Where windows lie on maps. A windowed generator is a patch [channels, rows, columns] with a corner (y0, x0), which
// may be any integers: patch[c, t, u] belongs to position (c, y0 + t, x0 + u) of a map [channels, height, width], and
// to none where that lies outside.
#pragma once

#include "index.h"

namespace zonocuda {

/// patches [batch, symbols, channels, rows, columns]; corners [symbols, 2]; a map is [batch, channels, height, width].
struct Windows {
  int64_t batch, symbols, channels, rows, columns, height, width;

  ZONOCUDA_HD int64_t patch() const { return channels * rows * columns; }
  ZONOCUDA_HD int64_t plane() const { return height * width; }
  ZONOCUDA_HD int64_t map() const { return channels * plane(); }
};

ZONOCUDA_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ZONOCUDA_HD int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

/// The nearest corner in [begin - size, end]: it leaves a window of `size` the same positions in [begin, end), and its
/// sums cannot overflow.
ZONOCUDA_HD int64_t near_corner(int64_t corner, int64_t size, int64_t begin, int64_t end) {
  return smaller(larger(corner, begin - size), end);
}

/// Positions [first, last) of a window's axis; never first > last.
struct Span {
  int64_t first, last;

  ZONOCUDA_HD int64_t size() const { return last - first; }
};

/// The positions of a window of `size` at `corner` that lie at map positions [begin, end).
ZONOCUDA_HD Span clip(int64_t corner, int64_t size, int64_t begin, int64_t end) {
  const int64_t at = near_corner(corner, size, begin, end);
  return {larger(0, begin - at), smaller(size, end - at)};
}

/// Whether a <= x < b.
ZONOCUDA_HD bool between(int64_t a, int64_t x, int64_t b) { return a <= x && x < b; }

ZONOCUDA_HD int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }  // b > 0

/// One axis of a convolution, of a map that is zero but at one position p: output i gets kernel element v where
/// v dilation = p + padding - stride i. All numbers are below 2^31 in magnitude.
struct ConvAxis {
  int64_t in, out, kernel, stride, padding, dilation;

  ZONOCUDA_HD int64_t extent() const { return (kernel - 1) * dilation + 1; }
  /// The size of the window: every output that a position can reach.
  ZONOCUDA_HD int64_t window() const { return ceil_div(extent(), stride); }
  ZONOCUDA_HD int64_t corner(int64_t p) const { return floor_div(p + padding, stride) - (window() - 1); }
  /// (p + padding) mod stride. The kernel elements that a window sees depend on nothing else of p.
  ZONOCUDA_HD int64_t phase(int64_t p) const { return p + padding - stride * floor_div(p + padding, stride); }
  /// The kernel element at window position t, -1 if there is none.
  ZONOCUDA_HD int64_t tap(int64_t phase, int64_t t) const {
    const int64_t reach = phase + stride * (window() - 1 - t);
    const int64_t v = dilation == 1 ? reach : reach / dilation;
    return v < kernel && v * dilation == reach ? v : -1;
  }
  /// The window position of kernel element v, -1 if there is none.
  ZONOCUDA_HD int64_t position(int64_t phase, int64_t v) const {
    const int64_t reach = v * dilation - phase;
    if (reach < 0) {
      return -1;
    }
    const int64_t back = stride == 1 ? reach : reach / stride;
    return back * stride == reach ? window() - 1 - back : -1;
  }
};

/// A convolution of symbols that each touch one neuron: coefficients [batch, symbols], weight [outputs, channels /
/// groups, y.kernel, x.kernel], result [batch, symbols, outputs, y.window(), x.window()].
struct DiagonalConv {
  int64_t batch, symbols, channels, outputs, groups;
  ConvAxis y, x;

  ZONOCUDA_HD int64_t group_inputs() const { return channels / groups; }
  ZONOCUDA_HD int64_t group_outputs() const { return outputs / groups; }
  ZONOCUDA_HD int64_t window() const { return y.window() * x.window(); }
  ZONOCUDA_HD int64_t patch() const { return outputs * window(); }
  ZONOCUDA_HD int64_t features() const { return channels * y.in * x.in; }
  ZONOCUDA_HD int64_t weights() const { return outputs * group_inputs() * y.kernel * x.kernel; }
  ZONOCUDA_HD int64_t weight_offset(int64_t output, int64_t group_input, int64_t v_y, int64_t v_x) const {
    return ((output * group_inputs() + group_input) * y.kernel + v_y) * x.kernel + v_x;
  }
};

/// What the convolution needs to know of one symbol.
struct ConvPlace {
  int64_t channel, phase_y, phase_x, corner_y, corner_x;
};

/// `feature` is one of s.features().
ZONOCUDA_HD ConvPlace conv_place(const DiagonalConv& s, int64_t feature) {
  const int64_t row = feature / s.x.in;
  const int64_t y = row % s.y.in;
  const int64_t x = feature % s.x.in;
  return {row / s.y.in, s.y.phase(y), s.x.phase(x), s.y.corner(y), s.x.corner(x)};
}

}  // namespace zonocuda
