#include <tuple>

#include "../common/arguments.h"
#include "neurons.h"
#include "rows.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

template <class T>
void concretize_kernel(const Sizes& s, const T* center, const T* generators, T* lower, T* upper) {
  for_each_tile(s, 0, [&](int64_t b, int64_t n, int64_t width) {
    T radius[kMaxTile] = {};
    add_abs(generators + generator_offset(b, 0, n, s.symbols, s.features), s.symbols, s.features, width, radius);
    const int64_t at = b * s.features + n;
    bounds(center + at, radius, width, lower + at, upper + at);
  });
}

template <class T>
void concretize_backward_kernel(const Sizes& s, const T* grad_lower, const T* grad_upper, const T* generators,
                                T* grad_center, T* grad_generators) {
  const Writes writes = writes_of(s, sizeof(T));
  for_each_tile(s, 0, [&](int64_t b, int64_t n, int64_t width) {
    T shift[kMaxTile];
    const int64_t at = b * s.features + n;
    sum_and_difference(grad_lower + at, grad_upper + at, width, grad_center + at, shift);
    const int64_t block = generator_offset(b, 0, n, s.symbols, s.features);
    shift_signs(generators + block, shift, s.symbols, s.features, width, grad_generators + block, writes);
  });
}

}  // namespace

std::tuple<Tensor, Tensor> concretize(const Tensor& center, const Tensor& generators) {
  Concretize out = prepare_concretize(center, generators);
  if (!out.s.empty()) {
    dispatch_dtype("concretize", center.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      concretize_kernel<T>(out.s, center.const_data_ptr<T>(), generators.const_data_ptr<T>(),
                           out.lower.mutable_data_ptr<T>(), out.upper.mutable_data_ptr<T>());
    });
  }
  return {out.lower, out.upper};
}

std::tuple<Tensor, Tensor> concretize_backward(const Tensor& grad_lower, const Tensor& grad_upper,
                                               const Tensor& generators) {
  ConcretizeBackward out = prepare_concretize_backward(grad_lower, grad_upper, generators);
  if (!out.s.empty()) {
    dispatch_dtype("concretize_backward", generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      concretize_backward_kernel<T>(out.s, grad_lower.const_data_ptr<T>(), grad_upper.const_data_ptr<T>(),
                                    generators.const_data_ptr<T>(), out.grad_center.mutable_data_ptr<T>(),
                                    out.grad_generators.mutable_data_ptr<T>());
    });
  }
  return {out.grad_center, out.grad_generators};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("concretize", TORCH_BOX(&concretize));
  m.impl("_concretize_backward", TORCH_BOX(&concretize_backward));
}

}  // namespace zonocuda::cpu
