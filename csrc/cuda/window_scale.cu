#include <tuple>

#include "window_scale.cuh"
#include "windows_launch.h"

namespace zonocuda::cuda {
namespace {

// The patches of `out` may be the arguments.
void launch_window_scale(const char* op, WindowScale out, const Tensor& patches, const Tensor& corners,
                         const Tensor& multiplier) {
  const OnDeviceOf device(patches);
  dispatch_dtype(op, patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    map_windows<T>(op, out.s, corners, WindowScaleMap<T>{patches.const_data_ptr<T>(), multiplier.const_data_ptr<T>()},
                   {patches.const_data_ptr<T>(), out.patches.const_data_ptr<T>()}, out.patches, device.stream());
  });
}

}  // namespace

Tensor window_scale(const Tensor& patches, const Tensor& corners, const Tensor& multiplier) {
  const WindowScale out = prepare_window_scale(patches, corners, multiplier);
  launch_window_scale("window_scale", out, patches, corners, multiplier);
  return out.patches;
}

void window_scale_(const Tensor& patches, const Tensor& corners, const Tensor& multiplier) {
  const WindowScale out = prepare_window_scale_in_place(patches, corners, multiplier);
  launch_window_scale("window_scale_", out, patches, corners, multiplier);
}

std::tuple<Tensor, Tensor> window_scale_backward(const Tensor& grad, const Tensor& patches, const Tensor& corners,
                                                 const Tensor& multiplier, bool needs_patches, bool needs_multiplier) {
  const char* op = "window_scale_backward";
  WindowScaleBackward out =
      prepare_window_scale_backward(grad, patches, corners, multiplier, needs_patches, needs_multiplier);
  const OnDeviceOf device(patches);
  dispatch_dtype(op, patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    if (needs_patches) {
      map_windows<T>(op, out.s, corners, WindowScaleMap<T>{g, multiplier.const_data_ptr<T>()},
                     {g, out.grad_patches.const_data_ptr<T>()}, out.grad_patches, device.stream());
    }
    if (needs_multiplier) {
      sum_windows<T>(op, out.s, ProductTerm<T>{g, patches.const_data_ptr<T>()}, corners, out.grad_multiplier,
                     device.stream());
    }
  });
  return {out.grad_patches, out.grad_multiplier};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("window_scale", TORCH_BOX(&window_scale));
  m.impl("_window_scale_backward", TORCH_BOX(&window_scale_backward));
  m.impl("window_scale_", TORCH_BOX(&window_scale_));
}

}  // namespace zonocuda::cuda
