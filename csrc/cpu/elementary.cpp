#include <algorithm>

#include "../common/elementary_arguments.h"
#include "targets.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kBlock = 512;       // numbers that are converted at a time: they stay in the L1 cache
constexpr int64_t kWorkGrain = 4096;  // elements below which a second thread does not pay

#define ZONOCUDA_LOOPS(number, name, enclosed, slope)                                                                \
  ZONOCUDA_LOOP_CLONES void name##_values(const double* in, [[maybe_unused]] double p, Rounding rounding,            \
                                          int64_t count, double* out) {                                              \
    for (int64_t i = 0; i < count; ++i) {                                                                            \
      const double x = in[i];                                                                                        \
      out[i] = rounded_value(enclosed, rounding);                                                                    \
    }                                                                                                                \
  }                                                                                                                  \
  ZONOCUDA_LOOP_CLONES void name##_slopes(const double* in, [[maybe_unused]] double p, int64_t count, double* out) { \
    for (int64_t i = 0; i < count; ++i) {                                                                            \
      [[maybe_unused]] const double x = in[i];                                                                       \
      out[i] = slope;                                                                                                \
    }                                                                                                                \
  }
ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_LOOPS)
#undef ZONOCUDA_LOOPS

void values(Function function, const double* in, double p, Rounding rounding, int64_t count, double* out) {
  switch (function) {
#define ZONOCUDA_CALL(number, name, enclosed, slope) \
  case Function::name##_:                            \
    return name##_values(in, p, rounding, count, out);
    ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_CALL)
#undef ZONOCUDA_CALL
  }
}

void slopes(Function function, const double* in, double p, int64_t count, double* out) {
  switch (function) {
#define ZONOCUDA_CALL(number, name, enclosed, slope) \
  case Function::name##_:                            \
    return name##_slopes(in, p, count, out);
    ZONOCUDA_FOR_EACH_FUNCTION(ZONOCUDA_CALL)
#undef ZONOCUDA_CALL
  }
}

#define ZONOCUDA_CONVERSIONS(T)                                                                         \
  ZONOCUDA_LOOP_CLONES void widen(const T* in, int64_t count, double* out) {                            \
    for (int64_t i = 0; i < count; ++i) {                                                               \
      out[i] = in[i];                                                                                   \
    }                                                                                                   \
  }                                                                                                     \
  ZONOCUDA_LOOP_CLONES void store(const double* in, Rounding rounding, int64_t count, T* out) {         \
    for (int64_t i = 0; i < count; ++i) {                                                               \
      store_rounded(in[i], rounding, out + i);                                                          \
    }                                                                                                   \
  }                                                                                                     \
  ZONOCUDA_LOOP_CLONES void store_products(const T* grad, const double* slope, int64_t count, T* out) { \
    for (int64_t i = 0; i < count; ++i) {                                                               \
      out[i] = T(double(grad[i]) * slope[i]);                                                           \
    }                                                                                                   \
  }
ZONOCUDA_CONVERSIONS(float)
ZONOCUDA_CONVERSIONS(double)
#undef ZONOCUDA_CONVERSIONS

/// Calls f(first, count, numbers) for blocks of x as float64 numbers, in parallel.
template <class T, class F>
void for_each_block(const T* x, int64_t count, const F& f) {
  torch::stable::parallel_for(0, ceil_div(count, kBlock), kWorkGrain / kBlock, [&](int64_t begin, int64_t end) {
    double numbers[kBlock];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kBlock, size = std::min(kBlock, count - first);
      widen(x + first, size, numbers);
      f(first, size, numbers);
    }
  });
}

}  // namespace

Tensor elementary(const Tensor& x, int64_t function, double parameter, int64_t rounding) {
  const char* op = "elementary";
  const Function f = check_function(op, x, function, parameter);
  const Rounding direction = check_rounding(op, rounding);
  Tensor y = empty_like_tensor(x);
  dispatch_dtype(op, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    T* out = y.mutable_data_ptr<T>();
    for_each_block(x.const_data_ptr<T>(), x.numel(), [&](int64_t first, int64_t size, const double* numbers) {
      double results[kBlock];
      values(f, numbers, parameter, direction, size, results);
      store(results, direction, size, out + first);
    });
  });
  return y;
}

Tensor elementary_backward(const Tensor& grad, const Tensor& x, int64_t function, double parameter) {
  const char* op = "elementary_backward";
  const Function f = check_function(op, x, function, parameter);
  check_same(op, "grad", grad, x);
  Tensor grad_x = empty_like_tensor(x);
  dispatch_dtype(op, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    T* out = grad_x.mutable_data_ptr<T>();
    for_each_block(x.const_data_ptr<T>(), x.numel(), [&](int64_t first, int64_t size, const double* numbers) {
      double results[kBlock];
      slopes(f, numbers, parameter, size, results);
      store_products(g + first, results, size, out + first);
    });
  });
  return grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("elementary", TORCH_BOX(&elementary));
  m.impl("_elementary_backward", TORCH_BOX(&elementary_backward));
}

}  // namespace zonocuda::cpu
