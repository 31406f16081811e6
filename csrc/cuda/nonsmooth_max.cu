#include <tuple>

#include "../common/nonsmooth_arguments.h"
#include "columns.cuh"
#include "launch.h"
#include "nonsmooth_max.cuh"

namespace zonocuda::cuda {

std::tuple<Tensor, Tensor> nonsmooth_max(const Tensor& x, double /*first*/, double /*last*/, double /*even*/) {
  const char* op = "nonsmooth_max";
  NonsmoothMax out = prepare_nonsmooth_max(x);
  const MaxSizes& s = out.s;
  const OnDeviceOf device(x);
  if (s.outer * s.inner > 0) {
    dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_max_kernel<T><<<blocks_for(s.outer * s.inner, kThreads), kThreads, 0, device.stream()>>>(
          s.outer, s.length, s.inner, x.const_data_ptr<T>(), out.values.mutable_data_ptr<T>(),
          out.winners.mutable_data_ptr<int32_t>());
      check_launch(op);
    });
  }
  return {out.values, out.winners};
}

Tensor nonsmooth_max_backward(const Tensor& grad, const Tensor& winners, int64_t length, double first, double last,
                              double even) {
  const char* op = "nonsmooth_max_backward";
  NonsmoothMaxBackward out = prepare_nonsmooth_max_backward(grad, winners, length);
  const MaxSizes& s = out.s;
  const OnDeviceOf device(grad);
  if (s.outer * s.inner > 0) {
    dispatch_dtype_or_half(op, grad.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_max_backward_kernel<T><<<blocks_for(s.outer * s.inner, kThreads), kThreads, 0, device.stream()>>>(
          s.outer, s.length, s.inner, grad.const_data_ptr<T>(), winners.const_data_ptr<int32_t>(),
          TieWeights{first, last, even}, out.grad_x.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("nonsmooth_max", TORCH_BOX(&nonsmooth_max));
  m.impl("_nonsmooth_max_backward", TORCH_BOX(&nonsmooth_max_backward));
}

}  // namespace zonocuda::cuda
