#include "../common/window_arguments.h"
#include "windows.h"

namespace zonocuda::cpu {
namespace {

// generators[b, k, c]: a plane at a time, so that the window finds the zeros of its plane in the cache.
template <class T>
void dense_kernel(const Windows& s, const int64_t* corners, const T* patches, T* generators) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.plane()));
  torch::stable::parallel_for(0, s.batch * s.symbols * s.channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t* corner = corners + 2 * (i / s.channels % s.symbols);
      const Span y = clip(corner[0], s.rows, 0, s.height);
      const Span x = clip(corner[1], s.columns, 0, s.width);
      T* plane = generators + i * s.plane();
      std::fill_n(plane, s.plane(), T(0));
      if (y.size() > 0 && x.size() > 0) {
        copy_to_map({1, y.size(), x.size(), 0, s.columns, 0, s.width},
                    patches + (i * s.rows + y.first) * s.columns + x.first,
                    plane + (corner[0] + y.first) * s.width + corner[1] + x.first);
      }
    }
  });
}

}  // namespace

Tensor window_dense(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  WindowDense out = prepare_window_dense(patches, corners, height, width);
  dispatch_dtype("window_dense", patches.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    dense_kernel(out.s, corners.const_data_ptr<int64_t>(), patches.const_data_ptr<T>(),
                 out.generators.mutable_data_ptr<T>());
  });
  return out.generators;
}

Tensor window_dense_backward(const Tensor& grad, const Tensor& corners, int64_t rows, int64_t columns) {
  WindowDenseBackward out = prepare_window_dense_backward(grad, corners, rows, columns);
  const int64_t symbols = out.s.symbols, map = out.s.map();
  dispatch_dtype("window_dense_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    T* result = out.grad_patches.mutable_data_ptr<T>();
    fill_patches(out.s, corners.const_data_ptr<int64_t>(), out.s.plane(), result,
                 [=](int64_t b, int64_t k, int64_t patch, int64_t place, const Box& box) {
                   copy_to_patch(box, g + (b * symbols + k) * map + place, result + patch);
                 });
  });
  return out.grad_patches;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("window_dense", TORCH_BOX(&window_dense));
  m.impl("_window_dense_backward", TORCH_BOX(&window_dense_backward));
}

}  // namespace zonocuda::cpu
