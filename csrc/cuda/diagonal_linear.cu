#include <tuple>

#include "../common/arguments.h"
#include "columns_launch.h"
#include "diagonal_linear.cuh"

namespace zonocuda::cuda {

Tensor diagonal_linear(const Tensor& coefficients, const Tensor& index, const Tensor& weight) {
  DiagonalLinear out = prepare_diagonal_linear(coefficients, index, weight);
  const OnDeviceOf device(coefficients);
  const int64_t tiles = out.batch * ceil_div(out.symbols, kTile) * ceil_div(out.out, kTile);
  if (tiles > 0) {
    dispatch_dtype("diagonal_linear", coefficients.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      diagonal_linear_kernel<T><<<blocks_for(tiles, 1), dim3(kTile, kTileRows), 0, device.stream()>>>(
          {out.batch, out.symbols, out.in, out.out}, coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
          weight.const_data_ptr<T>(), out.result.mutable_data_ptr<T>());
      check_launch("diagonal_linear");
    });
  }
  return out.result;
}

std::tuple<Tensor, Tensor> diagonal_linear_backward(const Tensor& grad, const Tensor& coefficients, const Tensor& index,
                                                    const Tensor& weight, bool needs_weight) {
  const char* op = "diagonal_linear_backward";
  const OnDeviceOf device(coefficients);
  DiagonalLinearBackward out = prepare_diagonal_linear_backward(grad, coefficients, index, weight, needs_weight);
  const DiagonalSizes s{out.batch, out.symbols, out.in, out.out};
  dispatch_dtype(op, coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (s.batch * s.symbols > 0) {
      diagonal_linear_coefficients_kernel<T><<<blocks_for(s.batch * s.symbols, 1), kTile, 0, device.stream()>>>(
          s, grad.const_data_ptr<T>(), index.const_data_ptr<int64_t>(), weight.const_data_ptr<T>(),
          out.grad_coefficients.mutable_data_ptr<T>());
      check_launch(op);
    }
    const int64_t tiles = ceil_div(s.symbols, kTile) * ceil_div(s.out, kTile);
    if (needs_weight && s.in > 0 && tiles > 0) {
      Tensor found = torch::stable::new_empty(coefficients, {2, s.in}, ScalarType::Long);
      void* const ends = found.mutable_data_ptr();
      auto* const first = static_cast<unsigned long long*>(ends);
      check_cuda("cudaMemsetAsync", cudaMemsetAsync(ends, 0xff, 2 * s.in * sizeof(*first), device.stream()));
      find_symbols_kernel<<<blocks_for(s.symbols, kThreads), kThreads, 0, device.stream()>>>(
          s, index.const_data_ptr<int64_t>(), first, first + s.in);
      check_launch(op);
      diagonal_linear_weight_kernel<T><<<blocks_for(tiles, 1), dim3(kTile, kTileRows), 0, device.stream()>>>(
          s, grad.const_data_ptr<T>(), coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(), first,
          first + s.in, out.grad_weight.mutable_data_ptr<T>());
      check_launch(op);
    }
  });
  return {out.grad_coefficients, out.grad_weight};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("diagonal_linear", TORCH_BOX(&diagonal_linear));
  m.impl("_diagonal_linear_backward", TORCH_BOX(&diagonal_linear_backward));
}

}  // namespace zonocuda::cuda
