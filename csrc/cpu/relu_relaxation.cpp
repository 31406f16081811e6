#include <optional>
#include <tuple>

#include "../common/arguments.h"
#include "neurons.h"
#include "tiles.h"

namespace zonocuda::cpu {

std::tuple<Tensor, Tensor> relu_relaxation(const Tensor& lower, const Tensor& upper, const std::optional<Tensor>& slope,
                                           int64_t /*kink*/, double /*kink_tolerance*/) {
  ReluRelaxation out = prepare_relu_relaxation(lower, upper, slope);
  dispatch_dtype("relu_relaxation", lower.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* l = lower.const_data_ptr<T>();
    const T* u = upper.const_data_ptr<T>();
    const T* lam = slope.has_value() ? slope->const_data_ptr<T>() : nullptr;
    T* multiplier = out.multiplier.mutable_data_ptr<T>();
    T* offset = out.offset.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, out.count, kGrain, [&](int64_t begin, int64_t end) {
      relax(l + begin, u + begin, lam ? lam + begin : nullptr, end - begin, multiplier + begin, offset + begin);
    });
  });
  return {out.multiplier, out.offset};
}

std::tuple<Tensor, Tensor, Tensor> relu_relaxation_backward(const Tensor& grad_multiplier, const Tensor& grad_offset,
                                                            const Tensor& lower, const Tensor& upper,
                                                            const std::optional<Tensor>& slope, int64_t kink,
                                                            double tolerance) {
  ReluRelaxationBackward out = prepare_relu_relaxation_backward(grad_multiplier, grad_offset, lower, upper, slope);
  dispatch_dtype("relu_relaxation_backward", lower.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const KinkChoice<T> choice{static_cast<Kink>(kink), static_cast<T>(tolerance)};
    const T* gm = grad_multiplier.const_data_ptr<T>();
    const T* go = grad_offset.const_data_ptr<T>();
    const T* l = lower.const_data_ptr<T>();
    const T* u = upper.const_data_ptr<T>();
    const T* lam = slope.has_value() ? slope->const_data_ptr<T>() : nullptr;
    T* grad_slope = out.grad_slope.mutable_data_ptr<T>();
    T* grad_lower = out.grad_lower.mutable_data_ptr<T>();
    T* grad_upper = out.grad_upper.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, out.count, kGrain, [&](int64_t begin, int64_t end) {
      relax_backward(l + begin, u + begin, lam ? lam + begin : nullptr, choice, gm + begin, go + begin, end - begin,
                     grad_slope + begin, grad_lower + begin, grad_upper + begin);
    });
  });
  return {out.grad_slope, out.grad_lower, out.grad_upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("relu_relaxation", TORCH_BOX(&relu_relaxation));
  m.impl("_relu_relaxation_backward", TORCH_BOX(&relu_relaxation_backward));
}

}  // namespace zonocuda::cpu
