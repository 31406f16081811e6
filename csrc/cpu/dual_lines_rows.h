// Loops over pieces of rows at an activation between two lines, vectorised and compiled for several instruction sets.
#pragma once

#include <cstdint>

namespace zonocuda::cpu {

constexpr int64_t kLineStrip = 512;  // entries of a piece, at most
constexpr int kLineLanes = 16;       // partial sums of a row: entry j belongs to lane j % 16, on every machine

/// Where the lines of a piece lie.
template <class T>
struct LinesAt {
  const T *lower, *upper, *below, *above;
};

#define ZONOCUDA_DECLARE_LINES_ROWS(T)                                                                         \
  /* adds low and high to the lanes */                                                                         \
  void lines_steps(const T* v, LinesAt<T> at, int64_t width, T* image, T* low, T* high);                       \
  /* gradients of v, and of the lines for each entry; `one`: both signs have the slope `lower` */              \
  void lines_steps_backward(const T* v, LinesAt<T> at, const T* grad_image, T grad_low, T grad_high, bool one, \
                            int64_t width, T* grad_v, T* on_lower, T* on_upper, T* on_below, T* on_above);     \
  /* sum[j] += x[j] */                                                                                         \
  void add_to(const T* x, int64_t width, T* sum);

ZONOCUDA_DECLARE_LINES_ROWS(float)
ZONOCUDA_DECLARE_LINES_ROWS(double)
#undef ZONOCUDA_DECLARE_LINES_ROWS

}  // namespace zonocuda::cpu
