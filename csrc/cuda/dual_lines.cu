#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>

#include "../common/dual_lines_arguments.h"
#include "columns_launch.h"
#include "dual_lines.cuh"

namespace zonocuda::cuda {
namespace {

template <class T>
LinesArgs<T> arguments(const DualLinesSizes& s, const DualLinesInputs& in) {
  return {s.batch,
          s.rows,
          s.features,
          in.rows.const_data_ptr<T>(),
          {in.lower.const_data_ptr<T>(), s.lower > 1},
          {in.below.const_data_ptr<T>(), s.below > 1},
          {in.above.const_data_ptr<T>(), s.above > 1},
          {in.upper.has_value() ? in.upper->const_data_ptr<T>() : nullptr, s.upper > 1}};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> dual_lines(const Tensor& rows, const Tensor& lower, const Tensor& below,
                                              const Tensor& above, const std::optional<Tensor>& upper) {
  const DualLinesInputs in{rows, lower, below, above, upper};
  DualLines out = prepare_dual_lines(in);
  const OnDeviceOf device(rows);
  if (!out.s.empty()) {
    dispatch_dtype("dual_lines", rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      const LinesArgs<T> a = arguments<T>(out.s, in);
      const int64_t parts = a.parts();
      // As many as leave the device enough blocks; the sums do not depend on it.
      const int64_t rows_of_block = std::clamp<int64_t>(a.batch * a.rows * parts / kTargetBlocks, 1, kDualRows);
      const int64_t blocks = a.batch * ceil_div(a.rows, rows_of_block) * parts;
      Tensor partial = empty_like_sizes({2, parts > 1 ? a.batch * a.rows * parts : 0}, rows);
      T* const low = out.low.mutable_data_ptr<T>();
      T* const high = out.high.mutable_data_ptr<T>();
      T* const low_parts = parts > 1 ? partial.mutable_data_ptr<T>() : low;
      T* const high_parts = parts > 1 ? low_parts + a.batch * a.rows * parts : high;
      auto launch = [&](auto per_row) {
        dual_lines_kernel<T, per_row.value><<<blocks_for(blocks, 1), kThreads, 0, device.stream()>>>(
            a, static_cast<int>(rows_of_block), out.rows.mutable_data_ptr<T>(), low_parts, high_parts);
      };
      out.s.per_row() ? launch(std::true_type{}) : launch(std::false_type{});
      if (parts > 1) {
        check_launch("dual_lines");
        add_parts_kernel<T><<<blocks_for(a.batch * a.rows, kStrips), dim3(kLanes, kStrips), 0, device.stream()>>>(
            a.batch * a.rows, parts, low_parts, high_parts, low, high);
      }
      check_launch("dual_lines");
    });
  }
  return {out.rows, out.low, out.high};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_lines_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
    const Tensor& below, const Tensor& above, const std::optional<Tensor>& upper, bool needs_lines) {
  const char* op = "dual_lines_backward";
  const DualLinesInputs in{rows, lower, below, above, upper};
  DualLinesBackward out = prepare_dual_lines_backward(grad_rows, grad_low, grad_high, in, needs_lines);
  const OnDeviceOf device(rows);
  const int64_t neurons = out.s.batch * out.s.features;
  if (neurons > 0) {
    dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      auto wanted = [&](Tensor& t, int64_t count) {
        return needs_lines && count > 0 ? t.mutable_data_ptr<T>() : nullptr;
      };
      const LinesGrad<T> grad{grad_rows.const_data_ptr<T>(),  grad_low.const_data_ptr<T>(),
                              grad_high.const_data_ptr<T>(),  out.rows.mutable_data_ptr<T>(),
                              wanted(out.lower, out.s.lower), wanted(out.below, out.s.below),
                              wanted(out.above, out.s.above), wanted(out.upper, out.s.upper)};
      const LinesArgs<T> a = arguments<T>(out.s, in);
      const int64_t segments = a.segments();
      const bool finishes = needs_lines && segments > 1;
      Tensor partial = empty_like_sizes({finishes ? segments : 0, kLineSums, neurons}, rows);
      T* const sums = finishes ? partial.mutable_data_ptr<T>() : nullptr;
      const dim3 grid(blocks_for(a.batch * ceil_div(a.features, kLanes), 1),
                      static_cast<unsigned>(std::min(segments, kTargetBlocks)));
      dual_lines_backward_kernel<T><<<grid, dim3(kLanes, kStrips), 0, device.stream()>>>(a, grad, sums);
      if (finishes) {
        check_launch(op);
        dual_lines_finish_kernel<T><<<blocks_for(neurons, kThreads), kThreads, 0, device.stream()>>>(a, grad, sums);
      }
      check_launch(op);
    });
  }
  return {out.rows, out.lower, out.below, out.above, out.upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("dual_lines", TORCH_BOX(&dual_lines));
  m.impl("_dual_lines_backward", TORCH_BOX(&dual_lines_backward));
}

}  // namespace zonocuda::cuda
