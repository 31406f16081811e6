#include "../common/window_arguments.h"
#include "windows.h"

namespace zonocuda::cpu {

Tensor window_radius(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  WindowRadius out = prepare_window_radius(patches, corners, height, width);
  dispatch_dtype("window_radius", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = patches.const_data_ptr<T>();
    sum_windows(out.s, corners.const_data_ptr<int64_t>(), out.radius.mutable_data_ptr<T>(),
                [=](int64_t patch, T* map, const Box& box) { add_abs(box, x + patch, map); });
  });
  return out.radius;
}

Tensor window_radius_backward(const Tensor& grad, const Tensor& patches, const Tensor& corners) {
  WindowRadiusBackward out = prepare_window_radius_backward(grad, patches, corners);
  dispatch_dtype("window_radius_backward", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const WindowSource<T> g(out.s, grad.const_data_ptr<T>());
    const T* x = patches.const_data_ptr<T>();
    T* result = out.grad_patches.mutable_data_ptr<T>();
    fill_patches(out.s, corners.const_data_ptr<int64_t>(), g.stride(), result,
                 [&](int64_t b, int64_t, int64_t patch, int64_t place, const Box& box) {
                   multiply_signs(box, x + patch, g.map(b) + place, result + patch);
                 });
  });
  return out.grad_patches;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("window_radius", TORCH_BOX(&window_radius));
  m.impl("_window_radius_backward", TORCH_BOX(&window_radius_backward));
}

}  // namespace zonocuda::cpu
