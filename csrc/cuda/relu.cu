#include <optional>
#include <tuple>

#include "../common/arguments.h"
#include "column_tiles_launch.h"
#include "columns_launch.h"
#include "relu.cuh"

namespace zonocuda::cuda {
namespace {

// The center and generators of `out` may be the arguments.
void launch_relu(const char* op, const Relu& out, const Tensor& center, const Tensor& generators,
                 const std::optional<Tensor>& slope, const std::optional<Tensor>& lower,
                 const std::optional<Tensor>& upper) {
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype(op, center.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = generators.const_data_ptr<T>();
      T* result = out.generators.mutable_data_ptr<T>();
      const ReluForward<T> a{center.const_data_ptr<T>(),       data_or_null<T>(slope),
                             data_or_null<T>(lower),           data_or_null<T>(upper),
                             out.center.mutable_data_ptr<T>(), out.offset.mutable_data_ptr<T>(),
                             out.lower.mutable_data_ptr<T>(),  out.upper.mutable_data_ptr<T>()};
      if (!out.external && one_pass<T>(op, out.s, ReluPass<T>{{x}, result, a}, generators, device.stream())) {
        return;
      }
      std::optional<Tensor> radius;
      if (!out.external) {
        radius = sum_columns<T>(op, out.s, AbsTerm<T>{x}, {x}, center, device.stream());
      }
      Tensor multiplier = empty_like_sizes({out.s.batch, out.s.features}, center);
      T* factor = multiplier.mutable_data_ptr<T>();
      relu_kernel<T><<<blocks_for(out.s.batch * out.s.features, kThreads), kThreads, 0, device.stream()>>>(
          layout_of(out.s), a, data_or_null<T>(radius), factor);
      check_launch(op);
      map_rows<T>(op, out.s, ScaleMap<T>{x, factor}, {x, factor, result}, result, device.stream());
    });
  }
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relu(const Tensor& center, const Tensor& generators,
                                                        const std::optional<Tensor>& slope,
                                                        const std::optional<Tensor>& lower,
                                                        const std::optional<Tensor>& upper, int64_t /*kink*/,
                                                        double /*kink_tolerance*/) {
  const Relu out = prepare_relu(center, generators, slope, lower, upper);
  launch_relu("relu", out, center, generators, slope, lower, upper);
  return {out.center, out.generators, out.offset, out.lower, out.upper};
}

std::tuple<Tensor, Tensor, Tensor> relu_(const Tensor& center, const Tensor& generators,
                                         const std::optional<Tensor>& slope, const std::optional<Tensor>& lower,
                                         const std::optional<Tensor>& upper) {
  const Relu out = prepare_relu_in_place(center, generators, slope, lower, upper);
  launch_relu("relu_", out, center, generators, slope, lower, upper);
  return {out.offset, out.lower, out.upper};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relu_backward(
    const Tensor& grad_center, const Tensor& grad_generators, const Tensor& grad_offset, const Tensor& center,
    const Tensor& generators, const Tensor& lower, const Tensor& upper, const std::optional<Tensor>& slope,
    int64_t kink, double tolerance, bool external, bool needs_generators, bool needs_slope) {
  const char* op = "relu_backward";
  ReluBackward out = prepare_relu_backward(grad_center, grad_generators, grad_offset, center, generators, lower, upper,
                                           slope, needs_generators);
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype(op, generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = generators.const_data_ptr<T>();
      const T* g = grad_generators.const_data_ptr<T>();
      const Kink rule = static_cast<Kink>(kink);
      const ReluGrad<T> a{grad_center.const_data_ptr<T>(),
                          grad_offset.const_data_ptr<T>(),
                          center.const_data_ptr<T>(),
                          lower.const_data_ptr<T>(),
                          upper.const_data_ptr<T>(),
                          data_or_null<T>(slope),
                          rule,
                          static_cast<T>(tolerance),
                          external,
                          out.grad_center.mutable_data_ptr<T>(),
                          out.grad_slope.mutable_data_ptr<T>(),
                          out.grad_lower.mutable_data_ptr<T>(),
                          out.grad_upper.mutable_data_ptr<T>()};
      T* result = needs_generators ? out.grad_generators.mutable_data_ptr<T>() : nullptr;
      const bool needs_products = needs_slope || !slope.has_value() || rule == Kink::min_norm;
      if (needs_generators && needs_products &&
          one_pass<T>(op, out.s, ReluGradPass<T>{{g, x}, result, a}, generators, device.stream())) {
        return;
      }
      std::optional<Tensor> products;
      if (needs_products) {
        products = sum_columns<T>(op, out.s, ProductTerm<T>{g, x}, {g, x}, center, device.stream());
      }
      Tensor multiplier = empty_like_sizes({out.s.batch, out.s.features}, center);
      Tensor shift = empty_like_sizes({out.s.batch, out.s.features}, center);
      T *factor = multiplier.mutable_data_ptr<T>(), *added = shift.mutable_data_ptr<T>();
      relu_backward_kernel<T><<<blocks_for(out.s.batch * out.s.features, kThreads), kThreads, 0, device.stream()>>>(
          layout_of(out.s), a, data_or_null<T>(products), factor, added);
      check_launch(op);
      if (needs_generators) {
        map_rows<T>(op, out.s, ReluGradMap<T>{g, x, factor, added}, {g, x, factor, added, result}, result,
                    device.stream());
      }
    });
  }
  return {out.grad_center, out.grad_generators, out.grad_slope, out.grad_lower, out.grad_upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("relu", TORCH_BOX(&relu));
  m.impl("_relu_backward", TORCH_BOX(&relu_backward));
  m.impl("relu_", TORCH_BOX(&relu_));
}

}  // namespace zonocuda::cuda
