// Where windows lie on maps. A windowed generator is a patch [channels, rows, columns] with a corner (y0, x0), which
// may be any integers: patch[c, t, u] belongs to position (c, y0 + t, x0 + u) of a map [channels, height, width], and
// to none where that lies outside.
#pragma once

#include "index.h"

namespace zonocuda {

/// patches [batch, symbols, channels, rows, columns]; corners [symbols, 2]; a map is [batch, channels, height, width].
/// I: the type of every index.
template <class I>
struct WindowsOf {
  I batch, symbols, channels, rows, columns, height, width;

  ZONOCUDA_HD I patch() const { return channels * rows * columns; }
  ZONOCUDA_HD I plane() const { return height * width; }
  ZONOCUDA_HD I map() const { return channels * plane(); }
};
using Windows = WindowsOf<int64_t>;

/// Whether 32 bits hold whatever is computed of the maps' and the patches' sizes, none of which is empty: of dense
/// generators too, or of `parts` of a sum over the symbols.
inline bool is_narrow(const Windows& s, int64_t parts = 1, int64_t limit = kNarrowLimit) {
  constexpr int64_t kPitch = 64;  // more than a row of a tile
  return are_narrow({kPitch * (s.height + s.rows), s.width + s.columns}, limit) &&
         are_narrow(
             {(s.height + s.rows) * (s.width + s.columns), s.batch * s.symbols * s.patch(), parts * s.batch * s.map()},
             limit);
}

template <class I>
WindowsOf<I> cast_sizes(const Windows& s) {
  return {I(s.batch), I(s.symbols), I(s.channels), I(s.rows), I(s.columns), I(s.height), I(s.width)};
}

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

template <class I>
ZONOCUDA_HD I floor_div(I a, I b) {  // b > 0
  return a / b - (a % b < 0 ? 1 : 0);
}

/// One axis of a convolution: output i and kernel element v meet at position stride i + dilation v - padding. All
/// numbers are below 2^31 in magnitude; I: the type of what is computed of them.
template <class I>
struct ConvAxisOf {
  I in, out, kernel, stride, padding, dilation;

  ZONOCUDA_HD I extent() const { return (kernel - 1) * dilation + 1; }
  /// The output that kernel element v takes position p to, -1 if there is none.
  ZONOCUDA_HD I output(I p, I v) const {
    const I reach = p + padding - v * dilation;
    if (reach < 0) {
      return -1;
    }
    const I i = stride == 1 ? reach : reach / stride;
    return i < out && i * stride == reach ? i : I(-1);
  }
  /// The size of the window: every output that a position can reach.
  ZONOCUDA_HD I window() const { return ceil_div(extent(), stride); }
  ZONOCUDA_HD I corner(I p) const { return floor_div(I(p + padding), stride) - (window() - 1); }
  /// (p + padding) mod stride. The kernel elements that a window sees depend on nothing else of p.
  ZONOCUDA_HD I phase(I p) const { return p + padding - stride * floor_div(I(p + padding), stride); }
  /// What lies between window position t and the last one, in positions of the map.
  ZONOCUDA_HD I distance(I t) const { return stride * (window() - 1 - t); }
  /// The kernel element at window position t, -1 if there is none.
  ZONOCUDA_HD I tap(I phase, I t) const {
    const I reach = phase + distance(t);
    const I v = dilation == 1 ? reach : reach / dilation;
    return v < kernel && v * dilation == reach ? v : I(-1);
  }
  /// The window position of kernel element v, -1 if there is none.
  ZONOCUDA_HD I position(I phase, I v) const {
    const I reach = v * dilation - phase;
    if (reach < 0) {
      return -1;
    }
    const I back = stride == 1 ? reach : reach / stride;
    return back * stride == reach ? window() - 1 - back : I(-1);
  }
};
using ConvAxis = ConvAxisOf<int64_t>;

/// Whether 32 bits hold whatever is computed of an axis.
inline bool is_narrow(const ConvAxis& a, int64_t limit = kNarrowLimit) {
  return are_narrow({a.in, a.out, a.kernel, a.stride, a.padding, a.dilation}, limit) &&
         are_narrow({a.extent() + 2 * a.stride + a.in + (a.padding < 0 ? -a.padding : a.padding), a.out * a.stride},
                    limit);
}

template <class I>
ConvAxisOf<I> cast_sizes(const ConvAxis& a) {
  return {I(a.in), I(a.out), I(a.kernel), I(a.stride), I(a.padding), I(a.dilation)};
}

/// A convolution of symbols that each touch one neuron: coefficients [batch, symbols], weight [outputs, channels /
/// groups, y.kernel, x.kernel], result [batch, symbols, outputs, y.window(), x.window()].
template <class I>
struct DiagonalConvOf {
  I batch, symbols, channels, outputs, groups;
  ConvAxisOf<I> y, x;

  ZONOCUDA_HD I group_inputs() const { return channels / groups; }
  ZONOCUDA_HD I group_outputs() const { return outputs / groups; }
  ZONOCUDA_HD I window() const { return y.window() * x.window(); }
  ZONOCUDA_HD I patch() const { return outputs * window(); }
  ZONOCUDA_HD I features() const { return channels * y.in * x.in; }
  ZONOCUDA_HD I weights() const { return outputs * group_inputs() * y.kernel * x.kernel; }
  ZONOCUDA_HD I weight_offset(I output, I group_input, I v_y, I v_x) const {
    return ((output * group_inputs() + group_input) * y.kernel + v_y) * x.kernel + v_x;
  }
};
using DiagonalConv = DiagonalConvOf<int64_t>;

/// Whether 32 bits hold whatever is computed of these sizes, none of which is empty. `parts` of the weight's gradient
/// are added up.
inline bool is_narrow(const DiagonalConv& s, int64_t parts = 1, int64_t limit = kNarrowLimit) {
  return is_narrow(s.y, limit) && is_narrow(s.x, limit) &&
         are_narrow({s.batch * s.symbols * s.patch(), parts * s.weights(), s.features(), s.channels}, limit);
}

template <class I>
DiagonalConvOf<I> cast_sizes(const DiagonalConv& s) {
  return {I(s.batch), I(s.symbols), I(s.channels), I(s.outputs), I(s.groups), cast_sizes<I>(s.y), cast_sizes<I>(s.x)};
}

/// What the convolution needs to know of one symbol; `input`: its channel within its group.
template <class I>
struct ConvPlaceOf {
  I channel, group, input, phase_y, phase_x, corner_y, corner_x;
};
using ConvPlace = ConvPlaceOf<int64_t>;

/// `feature` is one of s.features().
template <class I>
ZONOCUDA_HD ConvPlaceOf<I> conv_place(const DiagonalConvOf<I>& s, I feature) {
  const I row = feature / s.x.in, channel = row / s.y.in;
  const I y = row - channel * s.y.in, x = feature - row * s.x.in;
  const I group = channel / s.group_inputs();
  return {channel, group, channel - group * s.group_inputs(), s.y.phase(y), s.x.phase(x), s.y.corner(y), s.x.corner(x)};
}

}  // namespace zonocuda
