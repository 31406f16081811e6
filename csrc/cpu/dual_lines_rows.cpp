#include "dual_lines_rows.h"

#include "../math/dual_lines.h"
#include "targets.h"

namespace zonocuda::cpu {

#define ZONOCUDA_DEFINE_LINES_ROWS(T)                                                                                  \
  ZONOCUDA_LOOP_CLONES void lines_steps(const T* v, LinesAt<T> at, int64_t width, T* __restrict__ image, T* low,       \
                                        T* high) {                                                                     \
    T lows[kLineLanes], highs[kLineLanes];                                                                             \
    for (int i = 0; i < kLineLanes; ++i) {                                                                             \
      lows[i] = low[i];                                                                                                \
      highs[i] = high[i];                                                                                              \
    }                                                                                                                  \
    int64_t j = 0;                                                                                                     \
    for (; j + kLineLanes <= width; j += kLineLanes) {                                                                 \
      for (int i = 0; i < kLineLanes; ++i) {                                                                           \
        const LinesStep<T> s =                                                                                         \
            lines_step(v[j + i], at.lower[j + i], at.upper[j + i], at.below[j + i], at.above[j + i]);                  \
        image[j + i] = s.image;                                                                                        \
        lows[i] += s.low;                                                                                              \
        highs[i] += s.high;                                                                                            \
      }                                                                                                                \
    }                                                                                                                  \
    for (int i = 0; j + i < width; ++i) {                                                                              \
      const LinesStep<T> s = lines_step(v[j + i], at.lower[j + i], at.upper[j + i], at.below[j + i], at.above[j + i]); \
      image[j + i] = s.image;                                                                                          \
      lows[i] += s.low;                                                                                                \
      highs[i] += s.high;                                                                                              \
    }                                                                                                                  \
    for (int i = 0; i < kLineLanes; ++i) {                                                                             \
      low[i] = lows[i];                                                                                                \
      high[i] = highs[i];                                                                                              \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void lines_steps_backward(const T* v, LinesAt<T> at, const T* grad_image, T grad_low,           \
                                                 T grad_high, bool one, int64_t width, T* __restrict__ grad_v,         \
                                                 T* __restrict__ on_lower, T* __restrict__ on_upper,                   \
                                                 T* __restrict__ on_below, T* __restrict__ on_above) {                 \
    for (int64_t j = 0; j < width; ++j) {                                                                              \
      const LinesStepGrad<T> g = lines_step_backward(v[j], at.lower[j], at.upper[j], at.below[j], at.above[j],         \
                                                     grad_image[j], grad_low, grad_high);                              \
      const bool takes = one || !(v[j] < T(0));                                                                        \
      grad_v[j] = g.v;                                                                                                 \
      on_lower[j] = takes ? g.slope : T(0);                                                                            \
      on_upper[j] = takes ? T(0) : g.slope;                                                                            \
      on_below[j] = g.below;                                                                                           \
      on_above[j] = g.above;                                                                                           \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void add_to(const T* x, int64_t width, T* __restrict__ sum) {                                   \
    for (int64_t j = 0; j < width; ++j) {                                                                              \
      sum[j] += x[j];                                                                                                  \
    }                                                                                                                  \
  }

ZONOCUDA_DEFINE_LINES_ROWS(float)
ZONOCUDA_DEFINE_LINES_ROWS(double)
#undef ZONOCUDA_DEFINE_LINES_ROWS

}  // namespace zonocuda::cpu
