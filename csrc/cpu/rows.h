// Loops over a block of generator rows, vectorised over the columns and compiled for several instruction sets.
// A block has `rows` rows of `width` columns; row k of x begins at x + k * stride.
#pragma once

#include <cstdint>

namespace zonocuda::cpu {

/// Whether a kernel's output stays in the caches or passes them by. Written in the ordinary way, memory that is in no
/// cache is read first: a third of the traffic of a copy.
enum class Writes { cached, streamed };

#define ZONOCUDA_DECLARE_ROWS(T)                                                                                       \
  /* sum[j] += sum_k |x[k, j]| */                                                                                      \
  void add_abs(const T* x, int64_t rows, int64_t stride, int64_t width, T* sum);                                       \
  /* sum[j] += sum_k x[k, j] * y[k, j] */                                                                              \
  void add_products(const T* x, const T* y, int64_t rows, int64_t stride, int64_t width, T* sum);                      \
  /* out[k, j] = factor[j] * x[k, j]; out may be x */                                                                  \
  void scale_rows(const T* x, const T* factor, int64_t rows, int64_t stride, int64_t width, T* out, Writes writes);    \
  /* out[k, j] = factor[j] * grad[k, j] + sign(x[k, j]) * shift[j] */                                                  \
  void scale_and_shift_signs(const T* grad, const T* x, const T* factor, const T* shift, int64_t rows, int64_t stride, \
                             int64_t width, T* out, Writes writes);                                                    \
  /* out[k, j] = sign(x[k, j]) * shift[j] */                                                                           \
  void shift_signs(const T* x, const T* shift, int64_t rows, int64_t stride, int64_t width, T* out, Writes writes);

ZONOCUDA_DECLARE_ROWS(float)
ZONOCUDA_DECLARE_ROWS(double)
#undef ZONOCUDA_DECLARE_ROWS

}  // namespace zonocuda::cpu
