#include "neurons.h"

#include "vectors.h"

namespace zonocuda::cpu {
namespace {

// With the choice of a slope and of a rule outside of the loop, what is left are selections, which g++ vectorises.
template <bool kTied, class T>
ZONOCUDA_INLINE void relax_loop(const T* __restrict__ lower, const T* __restrict__ upper, const T* __restrict__ slope,
                                int64_t count, T* __restrict__ multiplier, T* __restrict__ offset) {
  for (int64_t i = 0; i < count; ++i) {
    const Relaxation<T> r = relax_relu(lower[i], upper[i], kTied ? T(0) : slope[i], kTied);
    multiplier[i] = r.multiplier;
    offset[i] = r.offset;
  }
}

template <bool kTied, Kink kKink, class T>
ZONOCUDA_INLINE void relax_backward_loop(const T* __restrict__ lower, const T* __restrict__ upper,
                                         const T* __restrict__ slope, T tolerance, const T* __restrict__ multiplier,
                                         const T* __restrict__ offset, int64_t count, T* __restrict__ grad_slope,
                                         T* __restrict__ grad_lower, T* __restrict__ grad_upper) {
  for (int64_t i = 0; i < count; ++i) {
    const RelaxationGrad<T> g = relax_relu_backward(lower[i], upper[i], kTied ? T(0) : slope[i], kTied, kKink,
                                                    tolerance, multiplier[i], offset[i]);
    grad_slope[i] = g.slope;
    grad_lower[i] = g.lower;
    grad_upper[i] = g.upper;
  }
}

}  // namespace

#define ZONOCUDA_DEFINE_NEURONS(T)                                                                                \
  ZONOCUDA_LOOP_CLONES void bounds(const T* __restrict__ center, const T* __restrict__ radius, int64_t count,     \
                                   T* __restrict__ lower, T* __restrict__ upper) {                                \
    for (int64_t i = 0; i < count; ++i) {                                                                         \
      lower[i] = center[i] - radius[i];                                                                           \
      upper[i] = center[i] + radius[i];                                                                           \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void relax(const T* lower, const T* upper, const T* slope, int64_t count, T* multiplier,   \
                                  T* offset) {                                                                    \
    slope ? relax_loop<false>(lower, upper, slope, count, multiplier, offset)                                     \
          : relax_loop<true>(lower, upper, slope, count, multiplier, offset);                                     \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void relax_backward(const T* lower, const T* upper, const T* slope, KinkChoice<T> choice,  \
                                           const T* multiplier, const T* offset, int64_t count, T* grad_slope,    \
                                           T* grad_lower, T* grad_upper) {                                        \
    const auto loop = [&](auto tied, auto kink) ZONOCUDA_LAMBDA {                                                 \
      relax_backward_loop<decltype(tied)::value, decltype(kink)::value>(                                          \
          lower, upper, slope, choice.tolerance, multiplier, offset, count, grad_slope, grad_lower, grad_upper);  \
    };                                                                                                            \
    if (!slope) {                                                                                                 \
      return loop(std::true_type{}, std::integral_constant<Kink, Kink::envelope>{});                              \
    }                                                                                                             \
    switch (choice.kink) {                                                                                        \
      case Kink::left:                                                                                            \
        return loop(std::false_type{}, std::integral_constant<Kink, Kink::left>{});                               \
      case Kink::right:                                                                                           \
        return loop(std::false_type{}, std::integral_constant<Kink, Kink::right>{});                              \
      case Kink::even:                                                                                            \
        return loop(std::false_type{}, std::integral_constant<Kink, Kink::even>{});                               \
      case Kink::min_norm:                                                                                        \
        return loop(std::false_type{}, std::integral_constant<Kink, Kink::min_norm>{});                           \
      default:                                                                                                    \
        return loop(std::false_type{}, std::integral_constant<Kink, Kink::envelope>{});                           \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void scale_shift(const T* x, const T* __restrict__ factor, const T* __restrict__ shift,    \
                                        int64_t count, T* out) {                                                  \
    for (int64_t i = 0; i < count; ++i) {                                                                         \
      out[i] = factor[i] * x[i] + shift[i];                                                                       \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void add_product_and_sum(const T* __restrict__ x, const T* __restrict__ y,                 \
                                                const T* __restrict__ z, int64_t count, T* __restrict__ products, \
                                                T* __restrict__ sum) {                                            \
    for (int64_t i = 0; i < count; ++i) {                                                                         \
      products[i] = x[i] * y[i] + products[i];                                                                    \
      sum[i] = x[i] + z[i];                                                                                       \
    }                                                                                                             \
  }                                                                                                               \
  ZONOCUDA_LOOP_CLONES void sum_and_difference(const T* __restrict__ a, const T* __restrict__ b, int64_t count,   \
                                               T* __restrict__ sum, T* __restrict__ difference) {                 \
    for (int64_t i = 0; i < count; ++i) {                                                                         \
      sum[i] = a[i] + b[i];                                                                                       \
      difference[i] = b[i] - a[i];                                                                                \
    }                                                                                                             \
  }

ZONOCUDA_DEFINE_NEURONS(float)
ZONOCUDA_DEFINE_NEURONS(double)
#undef ZONOCUDA_DEFINE_NEURONS

}  // namespace zonocuda::cpu
