#include "rows.h"

#include <cmath>

#include "../math/relu.h"

// The loader picks the widest instruction set of the machine. Contraction is off in every clone, so that all of them,
// and the CUDA kernels, round alike.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define ZONOCUDA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ZONOCUDA_CLONES
#endif

namespace zonocuda::cpu {

#define ZONOCUDA_DEFINE_ROWS(T)                                                                                      \
  ZONOCUDA_CLONES void add_abs(const T* x, int64_t rows, int64_t stride, int64_t width, T* __restrict__ sum) {       \
    for (int64_t k = 0; k < rows; ++k) {                                                                             \
      const T* row = x + k * stride;                                                                                 \
      for (int64_t j = 0; j < width; ++j) {                                                                          \
        sum[j] += std::fabs(row[j]);                                                                                 \
      }                                                                                                              \
    }                                                                                                                \
  }                                                                                                                  \
  ZONOCUDA_CLONES void add_products(const T* x, const T* y, int64_t rows, int64_t stride, int64_t width,             \
                                    T* __restrict__ sum) {                                                           \
    for (int64_t k = 0; k < rows; ++k) {                                                                             \
      const T* a = x + k * stride;                                                                                   \
      const T* b = y + k * stride;                                                                                   \
      for (int64_t j = 0; j < width; ++j) {                                                                          \
        sum[j] += a[j] * b[j];                                                                                       \
      }                                                                                                              \
    }                                                                                                                \
  }                                                                                                                  \
  ZONOCUDA_CLONES void scale_rows(const T* x, const T* __restrict__ factor, int64_t rows, int64_t stride,            \
                                  int64_t width, T* out) {                                                           \
    for (int64_t k = 0; k < rows; ++k) {                                                                             \
      const T* row = x + k * stride;                                                                                 \
      T* o = out + k * stride;                                                                                       \
      for (int64_t j = 0; j < width; ++j) {                                                                          \
        o[j] = factor[j] * row[j];                                                                                   \
      }                                                                                                              \
    }                                                                                                                \
  }                                                                                                                  \
  ZONOCUDA_CLONES void scale_and_shift_signs(const T* grad, const T* x, const T* __restrict__ factor,                \
                                             const T* __restrict__ shift, int64_t rows, int64_t stride,              \
                                             int64_t width, T* __restrict__ out) {                                   \
    for (int64_t k = 0; k < rows; ++k) {                                                                             \
      const T* g = grad + k * stride;                                                                                \
      const T* row = x + k * stride;                                                                                 \
      T* o = out + k * stride;                                                                                       \
      for (int64_t j = 0; j < width; ++j) {                                                                          \
        o[j] = factor[j] * g[j] + sign(row[j]) * shift[j];                                                           \
      }                                                                                                              \
    }                                                                                                                \
  }                                                                                                                  \
  ZONOCUDA_CLONES void shift_signs(const T* x, const T* __restrict__ shift, int64_t rows, int64_t stride,            \
                                   int64_t width, T* __restrict__ out) {                                             \
    for (int64_t k = 0; k < rows; ++k) {                                                                             \
      const T* row = x + k * stride;                                                                                 \
      T* o = out + k * stride;                                                                                       \
      for (int64_t j = 0; j < width; ++j) {                                                                          \
        o[j] = sign(row[j]) * shift[j];                                                                              \
      }                                                                                                              \
    }                                                                                                                \
  }

ZONOCUDA_DEFINE_ROWS(float)
ZONOCUDA_DEFINE_ROWS(double)
#undef ZONOCUDA_DEFINE_ROWS

}  // namespace zonocuda::cpu
