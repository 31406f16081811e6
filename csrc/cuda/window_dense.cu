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
    const bool rows_divide = s.width % kVector<T> == 0;
    T* generators = out.generators.mutable_data_ptr<T>();
    with_vector<T>({s.batch, s.symbols, rows_divide ? s.map() : 1}, {generators}, [&](auto v) {
      with_index(is_narrow(s, s.symbols), [&](auto i) {
        using I = decltype(i);
        window_dense_kernel<T, I, v.value>
            <<<listed_grid(s, s.map(), v.value), dim3(kLanes, kStrips), 0, device.stream()>>>(
                cast_sizes<I>(s), corners.const_data_ptr<int64_t>(), patches.const_data_ptr<T>(), generators);
      });
    });
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
    map_windows<T>(op, out.s, corners, WindowGatherMap<T>{grad.const_data_ptr<T>()},
                   {out.grad_patches.const_data_ptr<T>()}, out.grad_patches, device.stream());
  });
  return out.grad_patches;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("window_dense", TORCH_BOX(&window_dense));
  m.impl("_window_dense_backward", TORCH_BOX(&window_dense_backward));
}

}  // namespace zonocuda::cuda
