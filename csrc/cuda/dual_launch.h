// What the launches of dual_relu and dual_split share.
#pragma once

#include <optional>

#include "../common/dual_arguments.h"
#include "columns_launch.h"
#include "dual_relu.cuh"

namespace zonocuda::cuda {

template <class T>
DualSide<T> dual_side(const std::optional<Tensor>& slope, int64_t count) {
  return {count > 0 ? slope->const_data_ptr<T>() : nullptr, count > 1};
}

template <class T>
DualArgs<T> dual_arguments(const DualSizes& s, const Tensor& rows, const Tensor& lower, const Tensor& upper,
                           const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative) {
  return {s.batch,
          s.rows,
          s.features,
          rows.const_data_ptr<T>(),
          lower.const_data_ptr<T>(),
          upper.const_data_ptr<T>(),
          dual_side<T>(negative, s.negative),
          dual_side<T>(nonnegative, s.nonnegative),
          !nonnegative.has_value()};
}

/// Rows that a block of the forward pass takes on: as many as leave the device enough blocks; the sums do not depend on
/// it.
template <class T>
int64_t rows_of_block(const DualArgs<T>& a) {
  return std::clamp<int64_t>(a.batch * a.rows * a.parts() / kTargetBlocks, 1, kDualRows);
}

template <class T>
dim3 backward_grid(const DualArgs<T>& a) {
  return {blocks_for(a.batch * ceil_div(a.features, kLanes), 1),
          static_cast<unsigned>(std::min(a.segments(), kTargetBlocks))};
}

}  // namespace zonocuda::cuda
