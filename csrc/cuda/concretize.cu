#include <tuple>

#include "../common/arguments.h"
#include "columns_launch.h"
#include "concretize.cuh"

namespace zonocuda::cuda {

std::tuple<Tensor, Tensor> concretize(const Tensor& center, const Tensor& generators) {
  Concretize out = prepare_concretize(center, generators);
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype("concretize", center.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = generators.const_data_ptr<T>();
      const Tensor radius = sum_columns<T>("concretize", out.s, AbsTerm<T>{x}, {x}, center, device.stream());
      concretize_kernel<T><<<blocks_for(out.s.batch * out.s.features, kThreads), kThreads, 0, device.stream()>>>(
          layout_of(out.s), center.const_data_ptr<T>(), radius.const_data_ptr<T>(), out.lower.mutable_data_ptr<T>(),
          out.upper.mutable_data_ptr<T>());
      check_launch("concretize");
    });
  }
  return {out.lower, out.upper};
}

std::tuple<Tensor, Tensor> concretize_backward(const Tensor& grad_lower, const Tensor& grad_upper,
                                               const Tensor& generators) {
  const char* op = "concretize_backward";
  ConcretizeBackward out = prepare_concretize_backward(grad_lower, grad_upper, generators);
  const OnDeviceOf device(generators);
  if (!out.s.empty()) {
    dispatch_dtype(op, generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const int64_t neurons = out.s.batch * out.s.features;
      Tensor shift = empty_like_sizes({out.s.batch, out.s.features}, generators);
      concretize_backward_kernel<T><<<blocks_for(neurons, kThreads), kThreads, 0, device.stream()>>>(
          neurons, grad_lower.const_data_ptr<T>(), grad_upper.const_data_ptr<T>(),
          out.grad_center.mutable_data_ptr<T>(), shift.mutable_data_ptr<T>());
      check_launch(op);
      const T* x = generators.const_data_ptr<T>();
      T* result = out.grad_generators.mutable_data_ptr<T>();
      map_rows<T>(op, out.s, SignMap<T>{x, shift.const_data_ptr<T>()}, {x, result, shift.const_data_ptr<T>()}, result,
                  device.stream());
    });
  }
  return {out.grad_center, out.grad_generators};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("concretize", TORCH_BOX(&concretize));
  m.impl("_concretize_backward", TORCH_BOX(&concretize_backward));
}

}  // namespace zonocuda::cuda
