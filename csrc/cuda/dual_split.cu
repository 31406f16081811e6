#include <optional>
#include <tuple>

#include "../common/dual_split_arguments.h"
#include "dual_launch.h"
#include "dual_split.cuh"

namespace zonocuda::cuda {
namespace {

template <class T>
SplitArgs<T> arguments(const DualSizes& s, const DualSplitInputs& in) {
  return {dual_arguments<T>(s, in.rows, in.lower, in.upper, in.negative, in.nonnegative),
          in.splits.const_data_ptr<int8_t>(),
          in.multipliers.has_value() ? in.multipliers->const_data_ptr<T>() : nullptr};
}

}  // namespace

std::tuple<Tensor, Tensor> dual_split(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                      const Tensor& splits, const std::optional<Tensor>& multipliers,
                                      const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative,
                                      int64_t /*kink*/, double /*tolerance*/) {
  const DualSplitInputs in{rows, lower, upper, splits, multipliers, negative, nonnegative};
  DualSplit out = prepare_dual_split(in);
  const OnDeviceOf device(rows);
  if (!out.s.empty()) {
    dispatch_dtype("dual_split", rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const SplitArgs<T> a = arguments<T>(out.s, in);
      const int64_t parts = a.rows.parts(), count = a.rows.batch * a.rows.rows, each = rows_of_block(a.rows);
      const int64_t blocks = a.rows.batch * ceil_div(a.rows.rows, each) * parts;
      Tensor partial = empty_like_sizes({parts > 1 ? count * parts : 0}, rows);
      T* const low = out.low.mutable_data_ptr<T>();
      T* const low_parts = parts > 1 ? partial.mutable_data_ptr<T>() : low;
      dual_split_kernel<T><<<blocks_for(blocks, 1), kThreads, 0, device.stream()>>>(
          a, static_cast<int>(each), out.rows.mutable_data_ptr<T>(), low_parts);
      if (parts > 1) {
        check_launch("dual_split");
        add_parts_kernel<T><<<blocks_for(count, kStrips), dim3(kLanes, kStrips), 0, device.stream()>>>(
            count, parts, low_parts, nullptr, low, nullptr);
      }
      check_launch("dual_split");
    });
  }
  return {out.rows, out.low};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> dual_split_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& rows, const Tensor& lower, const Tensor& upper,
    const Tensor& splits, const std::optional<Tensor>& multipliers, const std::optional<Tensor>& negative,
    const std::optional<Tensor>& nonnegative, int64_t kink, double tolerance, bool needs_bounds, bool needs_slopes) {
  const char* op = "dual_split_backward";
  const DualSplitInputs in{rows, lower, upper, splits, multipliers, negative, nonnegative};
  DualSplitBackward out = prepare_dual_split_backward(grad_rows, grad_low, in, needs_bounds, needs_slopes);
  const OnDeviceOf device(rows);
  const int64_t neurons = out.s.batch * out.s.features;
  if (neurons > 0) {
    dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      auto wanted = [&](Tensor& t, bool is) { return is ? t.mutable_data_ptr<T>() : nullptr; };
      const DualGrad<T> grad{grad_rows.const_data_ptr<T>(),
                             grad_low.const_data_ptr<T>(),
                             nullptr,
                             static_cast<Kink>(kink),
                             static_cast<T>(tolerance),
                             out.rows.mutable_data_ptr<T>(),
                             wanted(out.lower, needs_bounds),
                             wanted(out.upper, needs_bounds),
                             wanted(out.negative, needs_slopes && out.s.negative > 0),
                             wanted(out.nonnegative, needs_slopes && out.s.nonnegative > 0)};
      const SplitArgs<T> a = arguments<T>(out.s, in);
      const bool shares =
          (grad.out_negative && !a.rows.negative.per_row) || (grad.out_nonnegative && !a.rows.nonnegative.per_row);
      const bool reduces = needs_bounds || shares;
      const bool finishes = reduces && a.rows.segments() > 1;
      Tensor partial = empty_like_sizes({finishes ? a.rows.segments() : 0, kDualSums, neurons}, rows);
      T* const sums = wanted(partial, finishes);
      dual_split_backward_kernel<T><<<backward_grid(a.rows), dim3(kLanes, kStrips), 0, device.stream()>>>(
          a, grad, wanted(out.multipliers, multipliers.has_value()), reduces, sums);
      if (finishes) {
        check_launch(op);
        dual_relu_finish_kernel<T><<<blocks_for(neurons, kThreads), kThreads, 0, device.stream()>>>(a.rows, grad, sums);
      }
      check_launch(op);
    });
  }
  return {out.rows, out.lower, out.upper, out.multipliers, out.negative, out.nonnegative};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("dual_split", TORCH_BOX(&dual_split));
  m.impl("_dual_split_backward", TORCH_BOX(&dual_split_backward));
}

}  // namespace zonocuda::cuda
