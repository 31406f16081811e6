#include "window_dense.cuh"
#include "windows_launch.h"

namespace zonocuda::cuda {

Tensor window_dense(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  WindowDense out = prepare_window_dense(patches, corners, height, width);
  const OnDeviceOf device(patches);
  const Windows& s = out.s;
  dispatch_dtype("window_dense", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (s.batch * s.symbols * s.map() == 0) {
      return;
    }
    const int64_t groups = s.batch * ceil_div(s.map(), kLanes);
    const int64_t strips = std::clamp<int64_t>(ceil_div(4 * kTargetBlocks, groups), 1, ceil_div(s.symbols, kStrips));
    const dim3 grid(blocks_for(groups, 1), static_cast<unsigned>(strips));
    window_dense_kernel<T><<<grid, dim3(kLanes, kStrips), 0, device.stream()>>>(
        s, corners.const_data_ptr<int64_t>(), patches.const_data_ptr<T>(), out.generators.mutable_data_ptr<T>());
    check_launch("window_dense");
  });
  return out.generators;
}

Tensor window_dense_backward(const Tensor& grad, const Tensor& corners, int64_t rows, int64_t columns) {
  const char* op = "window_dense_backward";
  WindowDenseBackward out = prepare_window_dense_backward(grad, corners, rows, columns);
  const OnDeviceOf device(grad);
  dispatch_dtype(op, grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    map_windows<T>(op, out.s, corners, WindowGatherMap<T>{grad.const_data_ptr<T>(), out.s.map()}, out.grad_patches,
                   device.stream());
  });
  return out.grad_patches;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("window_dense", TORCH_BOX(&window_dense));
  m.impl("_window_dense_backward", TORCH_BOX(&window_dense_backward));
}

}  // namespace zonocuda::cuda
