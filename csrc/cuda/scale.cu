#include <optional>
#include <tuple>

#include "../common/arguments.h"
#include "columns_launch.h"
#include "scale.cuh"

namespace zonocuda::cuda {
namespace {

// The generators of `out` may be the arguments.
void launch_scale(const char* op, const Scale& out, const Tensor& generators, const Tensor& multiplier) {
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype(op, generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = generators.const_data_ptr<T>();
      const T* factor = multiplier.const_data_ptr<T>();
      T* result = out.generators.mutable_data_ptr<T>();
      map_rows<T>(op, out.s, ScaleMap<T>{x, factor}, {x, factor, result}, result, device.stream());
    });
  }
}

}  // namespace

Tensor scale(const Tensor& generators, const Tensor& multiplier) {
  const Scale out = prepare_scale(generators, multiplier);
  launch_scale("scale", out, generators, multiplier);
  return out.generators;
}

void scale_(const Tensor& generators, const Tensor& multiplier) {
  launch_scale("scale_", prepare_scale_in_place(generators, multiplier), generators, multiplier);
}

std::tuple<Tensor, Tensor> scale_backward(const Tensor& grad, const Tensor& generators, const Tensor& multiplier,
                                          bool needs_generators, bool needs_multiplier) {
  const char* op = "scale_backward";
  ScaleBackward out = prepare_scale_backward(grad, generators, multiplier, needs_generators);
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype(op, generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const T* g = grad.const_data_ptr<T>();
      const T* x = generators.const_data_ptr<T>();
      std::optional<Tensor> products;
      if (needs_multiplier) {
        products = sum_columns<T>(op, out.s, ProductTerm<T>{g, x}, {g, x}, generators, device.stream());
      }
      scale_backward_kernel<T><<<blocks_for(out.s.batch * out.s.features, kThreads), kThreads, 0, device.stream()>>>(
          layout_of(out.s), data_or_null<T>(products), out.grad_multiplier.mutable_data_ptr<T>());
      check_launch(op);
      if (needs_generators) {
        const T* factor = multiplier.const_data_ptr<T>();
        T* result = out.grad_generators.mutable_data_ptr<T>();
        map_rows<T>(op, out.s, ScaleMap<T>{g, factor}, {g, factor, result}, result, device.stream());
      }
    });
  }
  return {out.grad_generators, out.grad_multiplier};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("scale", TORCH_BOX(&scale));
  m.impl("_scale_backward", TORCH_BOX(&scale_backward));
  m.impl("scale_", TORCH_BOX(&scale_));
}

}  // namespace zonocuda::cuda
