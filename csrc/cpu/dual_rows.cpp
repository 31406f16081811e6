#include "dual_rows.h"

#include "../math/dual_relu.h"
#include "targets.h"

namespace zonocuda::cpu {

#define ZONOCUDA_DEFINE_DUAL_ROWS(T)                                                                              \
  ZONOCUDA_LOOP_CLONES void fill_table(const T* lower, const T* upper, const T* slope, int64_t width,             \
                                       DualTable<T>& table) {                                                     \
    for (int64_t j = 0; j < width; ++j) {                                                                         \
      const Relaxation<T> r = relax_relu(lower[j], upper[j], slope ? slope[j] : T(0), !slope);                    \
      table.multiplier[j] = r.multiplier;                                                                         \
      table.twice[j] = T(2) * r.offset;                                                                           \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void dual_steps(const T* v, const DualTable<T>& negative, const DualTable<T>& nonnegative, \
                                       int64_t width, T* image, T* low, T* high) {                                \
    T lows[kDualLanes], highs[kDualLanes];                                                                        \
    for (int i = 0; i < kDualLanes; ++i) {                                                                        \
      lows[i] = low[i];                                                                                           \
      highs[i] = high[i];                                                                                         \
    }                                                                                                             \
    int64_t j = 0;                                                                                                \
    for (; j + kDualLanes <= width; j += kDualLanes) {                                                            \
      for (int i = 0; i < kDualLanes; ++i) {                                                                      \
        const DualStep<T> s = dual_step(v[j + i], negative.multiplier[j + i], negative.twice[j + i],              \
                                        nonnegative.multiplier[j + i], nonnegative.twice[j + i]);                 \
        image[j + i] = s.image;                                                                                   \
        lows[i] += s.low;                                                                                         \
        highs[i] += s.high;                                                                                       \
      }                                                                                                           \
    }                                                                                                             \
    for (int i = 0; j + i < width; ++i) {                                                                         \
      const DualStep<T> s = dual_step(v[j + i], negative.multiplier[j + i], negative.twice[j + i],                \
                                      nonnegative.multiplier[j + i], nonnegative.twice[j + i]);                   \
      image[j + i] = s.image;                                                                                     \
      lows[i] += s.low;                                                                                           \
      highs[i] += s.high;                                                                                         \
    }                                                                                                             \
    for (int i = 0; i < kDualLanes; ++i) {                                                                        \
      low[i] = lows[i];                                                                                           \
      high[i] = highs[i];                                                                                         \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void dual_steps_backward(const T* v, const DualTable<T>& negative,                         \
                                                const DualTable<T>& nonnegative, const T* grad_image, T grad_low, \
                                                T grad_high, int64_t width, T* __restrict__ grad_v,               \
                                                T* __restrict__ grad_multiplier, T* __restrict__ grad_offset) {   \
    for (int64_t j = 0; j < width; ++j) {                                                                         \
      const DualStepGrad<T> g =                                                                                   \
          dual_step_backward(v[j], negative.multiplier[j], negative.twice[j], nonnegative.multiplier[j],          \
                             nonnegative.twice[j], grad_image[j], grad_low, grad_high);                           \
      grad_v[j] = g.v;                                                                                            \
      grad_multiplier[j] = g.multiplier;                                                                          \
      grad_offset[j] = g.offset;                                                                                  \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void add_side(const T* x, const T* v, bool negative, int64_t width, T* __restrict__ sum) { \
    if (negative) {                                                                                               \
      for (int64_t j = 0; j < width; ++j) {                                                                       \
        sum[j] += v[j] < T(0) ? x[j] : T(0);                                                                      \
      }                                                                                                           \
    } else {                                                                                                      \
      for (int64_t j = 0; j < width; ++j) {                                                                       \
        sum[j] += v[j] < T(0) ? T(0) : x[j];                                                                      \
      }                                                                                                           \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void add_all(const T* x, int64_t width, T* __restrict__ sum) {                             \
    for (int64_t j = 0; j < width; ++j) {                                                                         \
      sum[j] += x[j];                                                                                             \
    }                                                                                                             \
  }

ZONOCUDA_DEFINE_DUAL_ROWS(float)
ZONOCUDA_DEFINE_DUAL_ROWS(double)
#undef ZONOCUDA_DEFINE_DUAL_ROWS

}  // namespace zonocuda::cpu
