#include <optional>
#include <tuple>

#include "../common/dual_arguments.h"
#include "dual_relu.cuh"
#include "launch.h"

namespace zonocuda::cuda {
namespace {

template <class T>
DualSide<T> side(const std::optional<Tensor>& slope, int64_t count) {
  return {count > 0 ? slope->const_data_ptr<T>() : nullptr, count > 1};
}

template <class T>
DualArgs<T> arguments(const DualSizes& s, const Tensor& rows, const Tensor& lower, const Tensor& upper,
                      const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative) {
  return {s.batch,
          s.rows,
          s.features,
          rows.const_data_ptr<T>(),
          lower.const_data_ptr<T>(),
          upper.const_data_ptr<T>(),
          side<T>(negative, s.negative),
          side<T>(nonnegative, s.nonnegative),
          !nonnegative.has_value()};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> dual_relu(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                             const std::optional<Tensor>& negative,
                                             const std::optional<Tensor>& nonnegative, int64_t /*kink*/,
                                             double /*tolerance*/) {
  DualRelu out = prepare_dual_relu(rows, lower, upper, negative, nonnegative);
  const OnDeviceOf device(rows);
  if (!out.s.empty()) {
    dispatch_dtype("dual_relu", rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      dual_relu_kernel<T><<<blocks_for(out.s.batch * out.s.rows, 1), kThreads, 0, device.stream()>>>(
          arguments<T>(out.s, rows, lower, upper, negative, nonnegative), out.rows.mutable_data_ptr<T>(),
          out.low.mutable_data_ptr<T>(), out.high.mutable_data_ptr<T>());
      check_launch("dual_relu");
    });
  }
  return {out.rows, out.low, out.high};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_relu_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
    const Tensor& upper, const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative, int64_t kink,
    double tolerance, bool needs_slopes) {
  const char* op = "dual_relu_backward";
  DualReluBackward out = prepare_dual_relu_backward(grad_rows, grad_low, grad_high, rows, lower, upper, negative,
                                                    nonnegative, needs_slopes);
  const OnDeviceOf device(rows);
  const int64_t neurons = out.s.batch * out.s.features;
  if (neurons > 0) {
    dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      auto wanted = [&](Tensor& t, bool present) {
        return needs_slopes && present ? t.mutable_data_ptr<T>() : nullptr;
      };
      const DualGrad<T> grad{grad_rows.const_data_ptr<T>(),
                             grad_low.const_data_ptr<T>(),
                             grad_high.const_data_ptr<T>(),
                             static_cast<Kink>(kink),
                             static_cast<T>(tolerance),
                             out.rows.mutable_data_ptr<T>(),
                             wanted(out.lower, true),
                             wanted(out.upper, true),
                             wanted(out.negative, out.s.negative > 0),
                             wanted(out.nonnegative, out.s.nonnegative > 0)};
      dual_relu_backward_kernel<T><<<blocks_for(neurons, kThreads), kThreads, 0, device.stream()>>>(
          arguments<T>(out.s, rows, lower, upper, negative, nonnegative), grad);
      check_launch(op);
    });
  }
  return {out.rows, out.lower, out.upper, out.negative, out.nonnegative};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("dual_relu", TORCH_BOX(&dual_relu));
  m.impl("_dual_relu_backward", TORCH_BOX(&dual_relu_backward));
}

}  // namespace zonocuda::cuda
