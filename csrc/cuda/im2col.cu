#include <vector>

#include "../common/im2col_arguments.h"
#include "columns_launch.h"
#include "im2col.cuh"

namespace zonocuda::cuda {
namespace {

/// Threads in x for `items`, and as many shares of `channels` in y as fill the device.
dim3 grid_of(int64_t items, int64_t channels) {
  const int64_t blocks = ceil_div(items, kThreads);
  const int64_t shares = std::min<int64_t>(ceil_div(4 * kTargetBlocks, blocks), ceil_div(channels, int64_t(kUnroll)));
  return dim3(blocks_for(items, kThreads), static_cast<unsigned>(std::clamp<int64_t>(shares, 1, 65535)));
}

}  // namespace

Tensor im2col(const Tensor& x, std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> padding,
              std::vector<int64_t> dilation, std::vector<int64_t> output_size) {
  Im2colForward out = prepare_im2col(x, {kernel, stride, padding, dilation, output_size});
  const OnDeviceOf device(x);
  dispatch_dtype("im2col", x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (out.s.rows() * out.s.columns() == 0) {
      return;
    }
    with_index(is_narrow(out.s), [&](auto i) {
      using I = decltype(i);
      im2col_kernel<T, I><<<grid_of(out.s.columns(), out.s.channels), kThreads, 0, device.stream()>>>(
          cast_sizes<I>(out.s), x.const_data_ptr<T>(), out.columns.mutable_data_ptr<T>());
    });
    check_launch("im2col");
  });
  return out.columns;
}

Tensor im2col_backward(const Tensor& grad, std::vector<int64_t> input_size, std::vector<int64_t> kernel,
                       std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                       std::vector<int64_t> output_size) {
  const char* op = "im2col_backward";
  Im2colBackward out = prepare_im2col_backward(grad, input_size, {kernel, stride, padding, dilation, output_size});
  const OnDeviceOf device(grad);
  const int64_t positions = out.s.images * out.s.plane();
  dispatch_dtype(op, grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (positions * out.s.channels == 0) {
      return;
    }
    with_index(is_narrow(out.s), [&](auto i) {
      using I = decltype(i);
      im2col_backward_kernel<T, I><<<grid_of(positions, out.s.channels), kThreads, 0, device.stream()>>>(
          cast_sizes<I>(out.s), grad.const_data_ptr<T>(), out.grad_x.mutable_data_ptr<T>());
    });
    check_launch(op);
  });
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("im2col", TORCH_BOX(&im2col));
  m.impl("_im2col_backward", TORCH_BOX(&im2col_backward));
}

}  // namespace zonocuda::cuda
