#include <tuple>

#include "../common/nonsmooth_arguments.h"
#include "clones.h"
#include "halves.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

#define ZONOCUDA_MAXIMA(T)                                                                                      \
  ZONOCUDA_LOOP_CLONES void larger(const T* a, const T* b, int64_t count, T* values, int8_t* sides) {           \
    for (int64_t i = 0; i < count; ++i) {                                                                       \
      const int8_t side = larger_side(widen(a[i]), widen(b[i]));                                                \
      values[i] = side < 0 ? b[i] : a[i];                                                                       \
      sides[i] = side;                                                                                          \
    }                                                                                                           \
  }                                                                                                             \
  ZONOCUDA_LOOP_CLONES void share_of_sides(const T* g, const int8_t* sides, Wide<T> first, int64_t count, T* a, \
                                           T* b) {                                                              \
    for (int64_t i = 0; i < count; ++i) {                                                                       \
      const SideShares<Wide<T>> shares = side_shares(sides[i], widen(g[i]), first);                             \
      a[i] = narrow<T>(shares.a);                                                                               \
      b[i] = narrow<T>(shares.b);                                                                               \
    }                                                                                                           \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_MAXIMA)
#undef ZONOCUDA_MAXIMA

}  // namespace

std::tuple<Tensor, Tensor> nonsmooth_maximum(const Tensor& a, const Tensor& b, double /*first*/) {
  const char* op = "nonsmooth_maximum";
  check_same(op, "a", a, a);
  check_same(op, "b", b, a);
  Tensor values = empty_like_tensor(a);
  Tensor sides = empty_of_dtype(sizes_of(a), ScalarType::Char, a);
  dispatch_dtype_or_half(op, a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T *pa = a.const_data_ptr<T>(), *pb = b.const_data_ptr<T>();
    T* out = values.mutable_data_ptr<T>();
    int8_t* side = sides.mutable_data_ptr<int8_t>();
    torch::stable::parallel_for(0, a.numel(), kGrain, [&](int64_t begin, int64_t end) {
      larger(pa + begin, pb + begin, end - begin, out + begin, side + begin);
    });
  });
  return {values, sides};
}

std::tuple<Tensor, Tensor> nonsmooth_maximum_backward(const Tensor& grad, const Tensor& sides, double first) {
  const char* op = "nonsmooth_maximum_backward";
  check_same(op, "grad", grad, grad);
  check_record(op, "sides", sides, ScalarType::Char, sizes_of(grad), grad);
  Tensor grad_a = empty_like_tensor(grad), grad_b = empty_like_tensor(grad);
  dispatch_dtype_or_half(op, grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    const int8_t* side = sides.const_data_ptr<int8_t>();
    T *a = grad_a.mutable_data_ptr<T>(), *b = grad_b.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, grad.numel(), kGrain, [&](int64_t begin, int64_t end) {
      share_of_sides(g + begin, side + begin, Wide<T>(first), end - begin, a + begin, b + begin);
    });
  });
  return {grad_a, grad_b};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("nonsmooth_maximum", TORCH_BOX(&nonsmooth_maximum));
  m.impl("_nonsmooth_maximum_backward", TORCH_BOX(&nonsmooth_maximum_backward));
}

}  // namespace zonocuda::cpu
