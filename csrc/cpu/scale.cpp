#include <tuple>

#include "../common/arguments.h"
#include "rows.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

// out may be x
template <class T>
void scale_kernel(const Sizes& s, const T* x, const T* factor, T* out) {
  const Writes writes = x == out ? Writes::cached : writes_of(s, sizeof(T));
  for_each_tile(s, 0, [&](int64_t b, int64_t n, int64_t width) {
    const int64_t block = generator_offset(b, 0, n, s.symbols, s.features);
    scale_rows(x + block, factor + b * s.features + n, s.symbols, s.features, width, out + block, writes);
  });
}

}  // namespace

Tensor scale(const Tensor& generators, const Tensor& multiplier) {
  Scale out = prepare_scale(generators, multiplier);
  if (!out.s.empty()) {
    dispatch_dtype("scale", generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      scale_kernel<T>(out.s, generators.const_data_ptr<T>(), multiplier.const_data_ptr<T>(),
                      out.generators.mutable_data_ptr<T>());
    });
  }
  return out.generators;
}

void scale_(const Tensor& generators, const Tensor& multiplier) {
  const Scale out = prepare_scale_in_place(generators, multiplier);
  if (!out.s.empty()) {
    dispatch_dtype("scale_", generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      T* x = out.generators.mutable_data_ptr<T>();
      scale_kernel<T>(out.s, x, multiplier.const_data_ptr<T>(), x);
    });
  }
}

std::tuple<Tensor, Tensor> scale_backward(const Tensor& grad, const Tensor& generators, const Tensor& multiplier,
                                          bool needs_generators, bool needs_multiplier) {
  ScaleBackward out = prepare_scale_backward(grad, generators, multiplier, needs_generators);
  if (!out.s.empty()) {
    dispatch_dtype("scale_backward", generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const Sizes& s = out.s;
      const T* g = grad.const_data_ptr<T>();
      const T* x = generators.const_data_ptr<T>();
      const T* factor = multiplier.const_data_ptr<T>();
      T* grad_generators = out.grad_generators.mutable_data_ptr<T>();
      T* grad_multiplier = out.grad_multiplier.mutable_data_ptr<T>();
      const Writes writes = writes_of(s, sizeof(T));
      for_each_tile(s, 2 * sizeof(T), [&](int64_t b, int64_t n, int64_t width) {
        const int64_t block = generator_offset(b, 0, n, s.symbols, s.features);
        const int64_t at = b * s.features + n;
        std::fill_n(grad_multiplier + at, width, T(0));
        if (needs_multiplier) {
          add_products(g + block, x + block, s.symbols, s.features, width, grad_multiplier + at);
        }
        if (needs_generators) {
          scale_rows(g + block, factor + at, s.symbols, s.features, width, grad_generators + block, writes);
        }
      });
    });
  }
  return {out.grad_generators, out.grad_multiplier};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("scale", TORCH_BOX(&scale));
  m.impl("_scale_backward", TORCH_BOX(&scale_backward));
  m.impl("scale_", TORCH_BOX(&scale_));
}

}  // namespace zonocuda::cpu
