#include <tuple>

#include "../common/nonsmooth_arguments.h"
#include "columns.cuh"
#include "launch.h"
#include "nonsmooth_maximum.cuh"

namespace zonocuda::cuda {

std::tuple<Tensor, Tensor> nonsmooth_maximum(const Tensor& a, const Tensor& b, double /*first*/) {
  const char* op = "nonsmooth_maximum";
  check_same(op, "a", a, a);
  check_same(op, "b", b, a);
  Tensor values = empty_like_tensor(a);
  Tensor sides = empty_of_dtype(sizes_of(a), ScalarType::Char, a);
  const OnDeviceOf device(a);
  const int64_t count = a.numel();
  if (count > 0) {
    dispatch_dtype_or_half(op, a.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_maximum_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, a.const_data_ptr<T>(), b.const_data_ptr<T>(), values.mutable_data_ptr<T>(),
          sides.mutable_data_ptr<int8_t>());
      check_launch(op);
    });
  }
  return {values, sides};
}

std::tuple<Tensor, Tensor> nonsmooth_maximum_backward(const Tensor& grad, const Tensor& sides, double first) {
  const char* op = "nonsmooth_maximum_backward";
  check_same(op, "grad", grad, grad);
  check_record(op, "sides", sides, ScalarType::Char, sizes_of(grad), grad);
  Tensor grad_a = empty_like_tensor(grad), grad_b = empty_like_tensor(grad);
  const OnDeviceOf device(grad);
  const int64_t count = grad.numel();
  if (count > 0) {
    dispatch_dtype_or_half(op, grad.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_maximum_backward_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          count, grad.const_data_ptr<T>(), sides.const_data_ptr<int8_t>(), first, grad_a.mutable_data_ptr<T>(),
          grad_b.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return {grad_a, grad_b};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("nonsmooth_maximum", TORCH_BOX(&nonsmooth_maximum));
  m.impl("_nonsmooth_maximum_backward", TORCH_BOX(&nonsmooth_maximum_backward));
}

}  // namespace zonocuda::cuda
