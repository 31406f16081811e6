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
namespace {

// sum[j] += term(0, j) + term(1, j) + ..., added in this order. Four rows at a time: one load and one store of a sum
// for four terms, and four streams of memory in flight.
template <class T, class Term>
__attribute__((always_inline)) inline void add_rows(int64_t rows, int64_t width, T* __restrict__ sum, Term term) {
  int64_t k = 0;
  for (; k + 4 <= rows; k += 4) {
    for (int64_t j = 0; j < width; ++j) {
      sum[j] = sum[j] + term(k, j) + term(k + 1, j) + term(k + 2, j) + term(k + 3, j);
    }
  }
  for (; k < rows; ++k) {
    for (int64_t j = 0; j < width; ++j) {
      sum[j] += term(k, j);
    }
  }
}

}  // namespace

#define ZONOCUDA_DEFINE_ROWS(T)                                                                                        \
  ZONOCUDA_CLONES void add_abs(const T* x, int64_t rows, int64_t stride, int64_t width, T* sum) {                      \
    add_rows(rows, width, sum, [=](int64_t k, int64_t j) { return std::fabs(x[k * stride + j]); });                    \
  }                                                                                                                    \
  ZONOCUDA_CLONES void add_products(const T* x, const T* y, int64_t rows, int64_t stride, int64_t width, T* sum) {     \
    add_rows(rows, width, sum, [=](int64_t k, int64_t j) { return x[k * stride + j] * y[k * stride + j]; });           \
  }                                                                                                                    \
  ZONOCUDA_CLONES void scale_rows(const T* x, const T* __restrict__ factor, int64_t rows, int64_t stride,              \
                                  int64_t width, T* out) {                                                             \
    for (int64_t k = 0; k < rows; ++k) {                                                                               \
      const T* row = x + k * stride;                                                                                   \
      T* o = out + k * stride;                                                                                         \
      for (int64_t j = 0; j < width; ++j) {                                                                            \
        o[j] = factor[j] * row[j];                                                                                     \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_CLONES void scale_and_shift_signs(const T* grad, const T* x, const T* __restrict__ factor,                  \
                                             const T* __restrict__ shift, int64_t rows, int64_t stride, int64_t width, \
                                             T* __restrict__ out) {                                                    \
    for (int64_t k = 0; k < rows; ++k) {                                                                               \
      const T* g = grad + k * stride;                                                                                  \
      const T* row = x + k * stride;                                                                                   \
      T* o = out + k * stride;                                                                                         \
      for (int64_t j = 0; j < width; ++j) {                                                                            \
        o[j] = factor[j] * g[j] + sign(row[j]) * shift[j];                                                             \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_CLONES void shift_signs(const T* x, const T* __restrict__ shift, int64_t rows, int64_t stride,              \
                                   int64_t width, T* __restrict__ out) {                                               \
    for (int64_t k = 0; k < rows; ++k) {                                                                               \
      const T* row = x + k * stride;                                                                                   \
      T* o = out + k * stride;                                                                                         \
      for (int64_t j = 0; j < width; ++j) {                                                                            \
        o[j] = sign(row[j]) * shift[j];                                                                                \
      }                                                                                                                \
    }                                                                                                                  \
  }

ZONOCUDA_DEFINE_ROWS(float)
ZONOCUDA_DEFINE_ROWS(double)
#undef ZONOCUDA_DEFINE_ROWS

}  // namespace zonocuda::cpu
