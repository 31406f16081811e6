#include "../common/elementary_arguments.h"
#include "columns.cuh"
#include "elementary.cuh"
#include "launch.h"

namespace zonocuda::cuda {

Tensor elementary(const Tensor& x, int64_t function, double parameter, int64_t rounding) {
  const char* op = "elementary";
  const Function f = check_function(op, x, function, parameter);
  const Rounding direction = check_rounding(op, rounding);
  Tensor y = empty_like_tensor(x);
  const OnDeviceOf device(x);
  const int64_t count = x.numel();
  if (count > 0) {
    dispatch_dtype(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      elementary_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, x.const_data_ptr<T>(), f, parameter, direction, y.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return y;
}

Tensor elementary_backward(const Tensor& grad, const Tensor& x, int64_t function, double parameter) {
  const char* op = "elementary_backward";
  const Function f = check_function(op, x, function, parameter);
  check_same(op, "grad", grad, x);
  Tensor grad_x = empty_like_tensor(x);
  const OnDeviceOf device(x);
  const int64_t count = x.numel();
  if (count > 0) {
    dispatch_dtype(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      elementary_backward_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, grad.const_data_ptr<T>(), x.const_data_ptr<T>(), f, parameter, grad_x.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("elementary", TORCH_BOX(&elementary));
  m.impl("_elementary_backward", TORCH_BOX(&elementary_backward));
}

}  // namespace zonocuda::cuda
