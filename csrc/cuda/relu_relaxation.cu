#include <optional>
#include <tuple>

#include "../common/arguments.h"
#include "columns.cuh"
#include "launch.h"
#include "relu_relaxation.cuh"

namespace zonocuda::cuda {

std::tuple<Tensor, Tensor> relu_relaxation(const Tensor& lower, const Tensor& upper, const std::optional<Tensor>& slope,
                                           int64_t /*kink*/, double /*kink_tolerance*/) {
  ReluRelaxation out = prepare_relu_relaxation(lower, upper, slope);
  const OnDeviceOf device(lower);
  if (out.count > 0) {
    dispatch_dtype("relu_relaxation", lower.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      relu_relaxation_kernel<T><<<blocks_for(out.count, kThreads), kThreads, 0, device.stream()>>>(
          out.count, lower.const_data_ptr<T>(), upper.const_data_ptr<T>(), data_or_null<T>(slope),
          out.multiplier.mutable_data_ptr<T>(), out.offset.mutable_data_ptr<T>());
      check_launch("relu_relaxation");
    });
  }
  return {out.multiplier, out.offset};
}

std::tuple<Tensor, Tensor, Tensor> relu_relaxation_backward(const Tensor& grad_multiplier, const Tensor& grad_offset,
                                                            const Tensor& lower, const Tensor& upper,
                                                            const std::optional<Tensor>& slope, int64_t kink,
                                                            double tolerance) {
  const char* op = "relu_relaxation_backward";
  ReluRelaxationBackward out = prepare_relu_relaxation_backward(grad_multiplier, grad_offset, lower, upper, slope);
  const OnDeviceOf device(lower);
  if (out.count > 0) {
    dispatch_dtype(op, lower.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const RelaxationGradArgs<T> a{grad_multiplier.const_data_ptr<T>(),
                                    grad_offset.const_data_ptr<T>(),
                                    lower.const_data_ptr<T>(),
                                    upper.const_data_ptr<T>(),
                                    data_or_null<T>(slope),
                                    static_cast<Kink>(kink),
                                    static_cast<T>(tolerance),
                                    out.grad_slope.mutable_data_ptr<T>(),
                                    out.grad_lower.mutable_data_ptr<T>(),
                                    out.grad_upper.mutable_data_ptr<T>()};
      relu_relaxation_backward_kernel<T>
          <<<blocks_for(out.count, kThreads), kThreads, 0, device.stream()>>>(out.count, a);
      check_launch(op);
    });
  }
  return {out.grad_slope, out.grad_lower, out.grad_upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("relu_relaxation", TORCH_BOX(&relu_relaxation));
  m.impl("_relu_relaxation_backward", TORCH_BOX(&relu_relaxation_backward));
}

}  // namespace zonocuda::cuda
