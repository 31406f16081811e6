#include "../common/arguments.h"
#include "columns.cuh"
#include "error_block.cuh"
#include "launch.h"

namespace zonocuda::cuda {

Tensor error_block(const Tensor& coefficients, const Tensor& index, int64_t features) {
  ErrorBlock out = prepare_error_block(coefficients, index, features);
  const OnDeviceOf device(coefficients);
  const int64_t count = out.s.batch * out.s.symbols;
  if (count > 0 && out.s.features > 0) {
    dispatch_dtype("error_block", coefficients.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      torch::stable::zero_(out.generators);
      error_block_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          out.s.batch, out.s.symbols, out.s.features, coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
          out.generators.mutable_data_ptr<T>());
      check_launch("error_block");
    });
  }
  return out.generators;
}

Tensor error_block_backward(const Tensor& grad, const Tensor& index) {
  ErrorBlockBackward out = prepare_error_block_backward(grad, index);
  const OnDeviceOf device(grad);
  const int64_t count = out.s.batch * out.s.symbols;
  if (count > 0) {
    dispatch_dtype("error_block_backward", grad.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      error_block_backward_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, device.stream()>>>(
          out.s.batch, out.s.symbols, out.s.features, grad.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
          out.grad_coefficients.mutable_data_ptr<T>());
      check_launch("error_block_backward");
    });
  }
  return out.grad_coefficients;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("error_block", TORCH_BOX(&error_block));
  m.impl("_error_block_backward", TORCH_BOX(&error_block_backward));
}

}  // namespace zonocuda::cuda
