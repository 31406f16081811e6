#include "../common/nonsmooth_arguments.h"
#include "columns.cuh"
#include "launch.h"
#include "nonsmooth_relu.cuh"

namespace zonocuda::cuda {

Tensor nonsmooth_relu(const Tensor& x, double left, double /*at_zero*/) {
  const char* op = "nonsmooth_relu";
  check_same(op, "x", x, x);
  Tensor y = empty_like_tensor(x);
  const OnDeviceOf device(x);
  const int64_t count = x.numel();
  if (count > 0) {
    dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_relu_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, x.const_data_ptr<T>(), static_cast<Wide<T>>(left), y.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return y;
}

Tensor nonsmooth_relu_backward(const Tensor& grad, const Tensor& x, double left, double at_zero) {
  const char* op = "nonsmooth_relu_backward";
  check_same(op, "x", x, x);
  check_same(op, "grad", grad, x);
  Tensor grad_x = empty_like_tensor(x);
  const OnDeviceOf device(x);
  const int64_t count = x.numel();
  if (count > 0) {
    dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_relu_backward_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, grad.const_data_ptr<T>(), x.const_data_ptr<T>(), static_cast<Wide<T>>(left),
          static_cast<Wide<T>>(at_zero), grad_x.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("nonsmooth_relu", TORCH_BOX(&nonsmooth_relu));
  m.impl("_nonsmooth_relu_backward", TORCH_BOX(&nonsmooth_relu_backward));
}

}  // namespace zonocuda::cuda
