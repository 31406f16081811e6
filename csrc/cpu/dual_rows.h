// Loops over pieces of dual rows, vectorised and compiled for several instruction sets.
#pragma once

#include <cstdint>

namespace zonocuda::cpu {

constexpr int64_t kDualStrip = 512;  // entries of a piece, at most
constexpr int kDualLanes = 16;       // partial sums of a row: entry j belongs to lane j % 16, on every machine

/// lam and 2 mu of the entries of a piece.
template <class T>
struct DualTable {
  T multiplier[kDualStrip], twice[kDualStrip];
};

#define ZONOCUDA_DECLARE_DUAL_ROWS(T)                                                                                  \
  /* `slope` null: tied */                                                                                             \
  void fill_table(const T* lower, const T* upper, const T* slope, int64_t width, DualTable<T>& table);                 \
  /* adds low and high to the lanes */                                                                                 \
  void dual_steps(const T* v, const DualTable<T>& negative, const DualTable<T>& nonnegative, int64_t width, T* image,  \
                  T* low, T* high);                                                                                    \
  /* gradients of v, and of lam and mu for each entry */                                                               \
  void dual_steps_backward(const T* v, const DualTable<T>& negative, const DualTable<T>& nonnegative,                  \
                           const T* grad_image, T grad_low, T grad_high, int64_t width, T* grad_v, T* grad_multiplier, \
                           T* grad_offset);                                                                            \
  /* sum[j] += x[j] where v[j] is negative, or where it is not */                                                      \
  void add_side(const T* x, const T* v, bool negative, int64_t width, T* sum);                                         \
  /* sum[j] += x[j] */                                                                                                 \
  void add_all(const T* x, int64_t width, T* sum);

ZONOCUDA_DECLARE_DUAL_ROWS(float)
ZONOCUDA_DECLARE_DUAL_ROWS(double)
#undef ZONOCUDA_DECLARE_DUAL_ROWS

}  // namespace zonocuda::cpu
