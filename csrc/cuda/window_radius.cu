#include "window_radius.cuh"
#include "windows_launch.h"

namespace zonocuda::cuda {

Tensor window_radius(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  WindowRadius out = prepare_window_radius(patches, corners, height, width);
  const OnDeviceOf device(patches);
  dispatch_dtype("window_radius", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    sum_windows<T>("window_radius", out.s, AbsTerm<T>{patches.const_data_ptr<T>()}, corners, out.radius,
                   device.stream());
  });
  return out.radius;
}

Tensor window_radius_backward(const Tensor& grad, const Tensor& patches, const Tensor& corners) {
  const char* op = "window_radius_backward";
  WindowRadiusBackward out = prepare_window_radius_backward(grad, patches, corners);
  const OnDeviceOf device(patches);
  dispatch_dtype(op, patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    map_windows<T>(op, out.s, corners, WindowSignMap<T>{patches.const_data_ptr<T>(), grad.const_data_ptr<T>()},
                   {patches.const_data_ptr<T>(), out.grad_patches.const_data_ptr<T>()}, out.grad_patches,
                   device.stream());
  });
  return out.grad_patches;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("window_radius", TORCH_BOX(&window_radius));
  m.impl("_window_radius_backward", TORCH_BOX(&window_radius_backward));
}

}  // namespace zonocuda::cuda
