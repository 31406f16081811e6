#include "dual_split_rows.h"

#include "../math/dual_split.h"
#include "dual_rows.h"
#include "vectors.h"

namespace zonocuda::cpu {
namespace {

// Entries and lanes apart: g++ vectorises selections by numbers of another width in a plain loop alone.
template <class T>
ZONOCUDA_INLINE void steps_loop(const T* __restrict__ v, const int8_t* __restrict__ split, const T* __restrict__ beta,
                                const T* __restrict__ lower, const T* __restrict__ upper,
                                const T* __restrict__ negative, const T* __restrict__ nonnegative, int64_t width,
                                T* __restrict__ image, T* __restrict__ low) {
  T terms[kDualStrip];
  for (int64_t j = 0; j < width; ++j) {
    const SplitStep<T> s = split_step(v[j], split[j], beta[j], lower[j], upper[j], negative[j], nonnegative[j]);
    image[j] = s.image;
    terms[j] = s.low;
  }
  int64_t j = 0;
  for (; j + kDualLanes <= width; j += kDualLanes) {
    for (int i = 0; i < kDualLanes; ++i) {
      low[i] += terms[j + i];
    }
  }
  for (int i = 0; j + i < width; ++i) {
    low[i] += terms[j + i];
  }
}

template <bool kBeta, bool kFinished, class T>
ZONOCUDA_INLINE void backward_loop(const T* __restrict__ v, const int8_t* __restrict__ split,
                                   const T* __restrict__ beta, const T* __restrict__ lower, const T* __restrict__ upper,
                                   const T* __restrict__ negative, const T* __restrict__ nonnegative,
                                   const T* __restrict__ grad_image, T grad_low, int64_t width, T* __restrict__ grad_v,
                                   T* __restrict__ grad_beta, T* __restrict__ grad_negative,
                                   T* __restrict__ grad_nonnegative, T* __restrict__ grad_offset) {
  for (int64_t j = 0; j < width; ++j) {
    const SplitStepGrad<T> g = split_step_backward(v[j], split[j], beta[j], lower[j], upper[j], negative[j],
                                                   nonnegative[j], grad_image[j], grad_low);
    grad_v[j] = g.v;
    if (kBeta) {
      grad_beta[j] = g.beta;
    }
    grad_negative[j] = g.lam_negative;
    // Where v >= 0 there is no offset, and so nothing but the projection between lam and its slope.
    const bool moves =
        !is_dead(lower[j], upper[j]) & !is_active(lower[j], upper[j]) & (clamp_slope(nonnegative[j]) == nonnegative[j]);
    grad_nonnegative[j] = !kFinished | moves ? g.lam_nonnegative : T(0);
    grad_offset[j] = g.offset;
  }
}

}  // namespace

#define ZONOCUDA_DEFINE_SPLIT_ROWS(T)                                                                              \
  ZONOCUDA_LOOP_CLONES void tied_slopes(const T* lower, const T* upper, int64_t width, T* __restrict__ slope) {    \
    for (int64_t j = 0; j < width; ++j) {                                                                          \
      slope[j] = tied_slope(lower[j], upper[j]);                                                                   \
    }                                                                                                              \
  }                                                                                                                \
  ZONOCUDA_LOOP_CLONES void split_steps(const SplitPiece<T>& p, T* image, T* low) {                                \
    steps_loop(p.v, p.split, p.beta, p.lower, p.upper, p.negative, p.nonnegative, p.width, image, low);            \
  }                                                                                                                \
  ZONOCUDA_LOOP_CLONES void split_steps_backward(const SplitPiece<T>& p, const T* grad_image, T grad_low,          \
                                                 const SplitPieceGrads<T>& out) {                                  \
    const auto loop = [&](auto beta, auto finished) ZONOCUDA_LAMBDA {                                              \
      backward_loop<decltype(beta)::value, decltype(finished)::value>(                                             \
          p.v, p.split, p.beta, p.lower, p.upper, p.negative, p.nonnegative, grad_image, grad_low, p.width, out.v, \
          out.beta, out.negative, out.nonnegative, out.offset);                                                    \
    };                                                                                                             \
    if (out.finished) {                                                                                            \
      out.beta ? loop(std::true_type{}, std::true_type{}) : loop(std::false_type{}, std::true_type{});             \
    } else {                                                                                                       \
      out.beta ? loop(std::true_type{}, std::false_type{}) : loop(std::false_type{}, std::false_type{});           \
    }                                                                                                              \
  }

ZONOCUDA_DEFINE_SPLIT_ROWS(float)
ZONOCUDA_DEFINE_SPLIT_ROWS(double)
#undef ZONOCUDA_DEFINE_SPLIT_ROWS

}  // namespace zonocuda::cpu
