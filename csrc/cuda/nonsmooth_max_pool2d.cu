#include <tuple>
#include <vector>

#include "../common/nonsmooth_arguments.h"
#include "columns.cuh"
#include "launch.h"
#include "nonsmooth_max_pool2d.cuh"

namespace zonocuda::cuda {

std::tuple<Tensor, Tensor> nonsmooth_max_pool2d(const Tensor& x, std::vector<int64_t> kernel,
                                                std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                std::vector<int64_t> dilation, std::vector<int64_t> output_size,
                                                double /*first*/, double /*last*/, double /*even*/) {
  const char* op = "nonsmooth_max_pool2d";
  NonsmoothMaxPool out = prepare_nonsmooth_max_pool2d(x, {kernel, stride, padding, dilation}, output_size);
  const OnDeviceOf device(x);
  if (out.s.outputs() > 0) {
    dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_max_pool2d_kernel<T><<<blocks_for(out.s.outputs(), kThreads), kThreads, 0, device.stream()>>>(
          out.s, x.const_data_ptr<T>(), out.values.mutable_data_ptr<T>(), out.winners.mutable_data_ptr<int32_t>());
      check_launch(op);
    });
  }
  return {out.values, out.winners};
}

Tensor nonsmooth_max_pool2d_backward(const Tensor& grad, const Tensor& winners, std::vector<int64_t> input_size,
                                     std::vector<int64_t> kernel, std::vector<int64_t> stride,
                                     std::vector<int64_t> padding, std::vector<int64_t> dilation, double first,
                                     double last, double even) {
  const char* op = "nonsmooth_max_pool2d_backward";
  NonsmoothMaxPoolBackward out =
      prepare_nonsmooth_max_pool2d_backward(grad, winners, input_size, {kernel, stride, padding, dilation});
  const OnDeviceOf device(grad);
  if (out.s.inputs() > 0) {
    dispatch_dtype_or_half(op, grad.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      nonsmooth_max_pool2d_backward_kernel<T><<<blocks_for(out.s.inputs(), kThreads), kThreads, 0, device.stream()>>>(
          out.s, grad.const_data_ptr<T>(), winners.const_data_ptr<int32_t>(), TieWeights{first, last, even},
          out.grad_x.mutable_data_ptr<T>());
      check_launch(op);
    });
  }
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("nonsmooth_max_pool2d", TORCH_BOX(&nonsmooth_max_pool2d));
  m.impl("_nonsmooth_max_pool2d_backward", TORCH_BOX(&nonsmooth_max_pool2d_backward));
}

}  // namespace zonocuda::cuda
