#include <optional>
#include <tuple>
#include <type_traits>

#include "dual_launch.h"

namespace zonocuda::cuda {
namespace {

/// Calls f with whether a side has slopes for single entries.
template <class T, class F>
void with_per_row(const DualArgs<T>& a, F f) {
  if (a.negative.per_row || a.nonnegative.per_row) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> dual_relu(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                             const std::optional<Tensor>& negative,
                                             const std::optional<Tensor>& nonnegative, int64_t /*kink*/,
                                             double /*tolerance*/) {
  DualRelu out = prepare_dual_relu(rows, lower, upper, negative, nonnegative);
  const OnDeviceOf device(rows);
  if (!out.s.empty()) {
    dispatch_dtype("dual_relu", rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const DualArgs<T> a = dual_arguments<T>(out.s, rows, lower, upper, negative, nonnegative);
      const int64_t parts = a.parts();
      const int64_t each = rows_of_block(a);
      const int64_t blocks = a.batch * ceil_div(a.rows, each) * parts;
      Tensor partial = empty_like_sizes({2, parts > 1 ? a.batch * a.rows * parts : 0}, rows);
      T* const low = out.low.mutable_data_ptr<T>();
      T* const high = out.high.mutable_data_ptr<T>();
      T* const low_parts = parts > 1 ? partial.mutable_data_ptr<T>() : low;
      T* const high_parts = parts > 1 ? low_parts + a.batch * a.rows * parts : high;
      with_per_row(a, [&](auto per_row) {
        dual_relu_kernel<T, per_row.value><<<blocks_for(blocks, 1), kThreads, 0, device.stream()>>>(
            a, static_cast<int>(each), out.rows.mutable_data_ptr<T>(), low_parts, high_parts);
      });
      if (parts > 1) {
        check_launch("dual_relu");
        add_parts_kernel<T><<<blocks_for(a.batch * a.rows, kStrips), dim3(kLanes, kStrips), 0, device.stream()>>>(
            a.batch * a.rows, parts, low_parts, high_parts, low, high);
      }
      check_launch("dual_relu");
    });
  }
  return {out.rows, out.low, out.high};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_relu_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
    const Tensor& upper, const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative, int64_t kink,
    double tolerance, bool needs_slopes) {
  const char* op = "dual_relu_backward";
  DualReluBackward out = prepare_dual_relu_backward(grad_rows, grad_low, grad_high, rows, lower, upper, negative,
                                                    nonnegative, needs_slopes);
  const OnDeviceOf device(rows);
  const int64_t neurons = out.s.batch * out.s.features;
  if (neurons > 0) {
    dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      auto wanted = [&](Tensor& t, bool present) {
        return needs_slopes && present ? t.mutable_data_ptr<T>() : nullptr;
      };
      const DualGrad<T> grad{grad_rows.const_data_ptr<T>(),
                             grad_low.const_data_ptr<T>(),
                             grad_high.const_data_ptr<T>(),
                             static_cast<Kink>(kink),
                             static_cast<T>(tolerance),
                             out.rows.mutable_data_ptr<T>(),
                             wanted(out.lower, true),
                             wanted(out.upper, true),
                             wanted(out.negative, out.s.negative > 0),
                             wanted(out.nonnegative, out.s.nonnegative > 0)};
      const DualArgs<T> a = dual_arguments<T>(out.s, rows, lower, upper, negative, nonnegative);
      const int64_t segments = a.segments();
      const bool finishes = needs_slopes && segments > 1;
      Tensor partial = empty_like_sizes({finishes ? segments : 0, kDualSums, neurons}, rows);
      T* const sums = finishes ? partial.mutable_data_ptr<T>() : nullptr;
      const dim3 grid = backward_grid(a);
      with_per_row(a, [&](auto per_row) {
        dual_relu_backward_kernel<T, per_row.value><<<grid, dim3(kLanes, kStrips), 0, device.stream()>>>(a, grad, sums);
      });
      if (finishes) {
        check_launch(op);
        dual_relu_finish_kernel<T><<<blocks_for(neurons, kThreads), kThreads, 0, device.stream()>>>(a, grad, sums);
      }
      check_launch(op);
    });
  }
  return {out.rows, out.lower, out.upper, out.negative, out.nonnegative};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("dual_relu", TORCH_BOX(&dual_relu));
  m.impl("_dual_relu_backward", TORCH_BOX(&dual_relu_backward));
}

}  // namespace zonocuda::cuda
