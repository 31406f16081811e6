#include <tuple>

#include "../common/window_arguments.h"
#include "windows.h"

namespace zonocuda::cpu {
namespace {

// out = the map's numbers at the window's place times the patch; out may be the patches.
template <class T>
void scale_patches(const Windows& s, const int64_t* corners, const T* patches, const T* maps, T* out) {
  const WindowSource<T> source(s, maps);
  fill_patches(s, corners, source.stride(), out, [&](int64_t b, int64_t, int64_t patch, int64_t place, const Box& box) {
    multiply(box, patches + patch, source.map(b) + place, out + patch);
  });
}

}  // namespace

Tensor window_scale(const Tensor& patches, const Tensor& corners, const Tensor& multiplier) {
  WindowScale out = prepare_window_scale(patches, corners, multiplier);
  dispatch_dtype("window_scale", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    scale_patches(out.s, corners.const_data_ptr<int64_t>(), patches.const_data_ptr<T>(), multiplier.const_data_ptr<T>(),
                  out.patches.mutable_data_ptr<T>());
  });
  return out.patches;
}

void window_scale_(const Tensor& patches, const Tensor& corners, const Tensor& multiplier) {
  const WindowScale out = prepare_window_scale_in_place(patches, corners, multiplier);
  dispatch_dtype("window_scale_", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    T* x = out.patches.mutable_data_ptr<T>();
    scale_patches(out.s, corners.const_data_ptr<int64_t>(), x, multiplier.const_data_ptr<T>(), x);
  });
}

std::tuple<Tensor, Tensor> window_scale_backward(const Tensor& grad, const Tensor& patches, const Tensor& corners,
                                                 const Tensor& multiplier, bool needs_patches, bool needs_multiplier) {
  WindowScaleBackward out =
      prepare_window_scale_backward(grad, patches, corners, multiplier, needs_patches, needs_multiplier);
  dispatch_dtype("window_scale_backward", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t* at = corners.const_data_ptr<int64_t>();
    const T* g = grad.const_data_ptr<T>();
    const T* x = patches.const_data_ptr<T>();
    if (needs_patches) {
      scale_patches(out.s, at, g, multiplier.const_data_ptr<T>(), out.grad_patches.mutable_data_ptr<T>());
    }
    if (needs_multiplier) {
      sum_windows(out.s, at, out.grad_multiplier.mutable_data_ptr<T>(),
                  [=](int64_t patch, T* map, const Box& box) { add_products(box, g + patch, x + patch, map); });
    }
  });
  return {out.grad_patches, out.grad_multiplier};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("window_scale", TORCH_BOX(&window_scale));
  m.impl("_window_scale_backward", TORCH_BOX(&window_scale_backward));
  m.impl("window_scale_", TORCH_BOX(&window_scale_));
}

}  // namespace zonocuda::cpu
