// The matrix of a convolution's windows: columns [channels * taps, images * outputs], one column for each output of
// each image, that holds what its window sees of images [images, channels, z, y, x], and zeros outside.
#pragma once

#include "window.h"

namespace zonocuda {

/// I: the type of every index.
template <class I>
struct Im2colOf {
  I images, channels;
  ConvAxisOf<I> z, y, x;

  ZONOCUDA_HD I taps() const { return z.kernel * y.kernel * x.kernel; }
  ZONOCUDA_HD I outputs() const { return z.out * y.out * x.out; }
  ZONOCUDA_HD I plane() const { return z.in * y.in * x.in; }
  /// Of the matrix.
  ZONOCUDA_HD I rows() const { return channels * taps(); }
  ZONOCUDA_HD I columns() const { return images * outputs(); }
};
using Im2col = Im2colOf<int64_t>;

/// Whether 32 bits hold whatever is computed of these sizes, none of which is empty.
inline bool is_narrow(const Im2col& s, int64_t limit = kNarrowLimit) {
  return is_narrow(s.z, limit) && is_narrow(s.y, limit) && is_narrow(s.x, limit) &&
         are_narrow({s.rows() * s.columns(), s.images * s.channels * s.plane()}, limit);
}

template <class I>
Im2colOf<I> cast_sizes(const Im2col& s) {
  return {I(s.images), I(s.channels), cast_sizes<I>(s.z), cast_sizes<I>(s.y), cast_sizes<I>(s.x)};
}

}  // namespace zonocuda
