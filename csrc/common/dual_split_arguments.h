// dual_split: the checks on its arguments and its outputs, allocated. One place for both devices.
#pragma once

#include <optional>

#include "dual_arguments.h"

namespace zonocuda {

/// What a call is about: rows, the bounds, the splits, the multipliers, and the slopes of both signs.
struct DualSplitInputs {
  const Tensor &rows, &lower, &upper, &splits;
  const std::optional<Tensor>&multipliers, &negative, &nonnegative;
};

inline DualSizes check_dual_split(const char* op, const DualSplitInputs& in) {
  const DualSizes s = check_dual_relu(op, in.rows, in.lower, in.upper, in.negative, in.nonnegative);
  STD_TORCH_CHECK(has_sizes(in.splits, {s.batch, s.rows, s.features}), op,
                  ": splits must have shape [batch, rows, features], got ", format_shape(in.splits));
  STD_TORCH_CHECK(in.splits.scalar_type() == ScalarType::Char, op, ": splits must have dtype int8, got ",
                  torch::headeronly::toString(in.splits.scalar_type()));
  STD_TORCH_CHECK(in.splits.is_contiguous(), op, ": splits must be contiguous");
  STD_TORCH_CHECK(in.splits.device() == in.rows.device(), op, ": splits must be on the device of the other tensors");
  if (in.multipliers.has_value()) {
    check_argument(op, {"multipliers", *in.multipliers, {s.batch, s.rows, s.features}, "[batch, rows, features]"},
                   in.rows);
  }
  return s;
}

struct DualSplit {
  DualSizes s;
  Tensor rows, low;
};

inline DualSplit prepare_dual_split(const DualSplitInputs& in) {
  const DualSizes s = check_dual_split("dual_split", in);
  return {s, empty_like_sizes({s.batch, s.rows, s.features}, in.rows), empty_like_sizes({s.batch, s.rows}, in.rows)};
}

struct DualSplitBackward {
  DualSizes s;
  Tensor rows, lower, upper, multipliers, negative, nonnegative;
};

/// What is not given, or whose gradient nobody wants, gets an empty one, without rows or features.
inline DualSplitBackward prepare_dual_split_backward(const Tensor& grad_rows, const Tensor& grad_low,
                                                     const DualSplitInputs& in, bool needs_bounds, bool needs_slopes) {
  const char* op = "dual_split_backward";
  const DualSizes s = check_dual_split(op, in);
  check_argument(op, {"grad_rows", grad_rows, {s.batch, s.rows, s.features}, "[batch, rows, features]"}, in.rows);
  check_argument(op, {"grad_low", grad_low, {s.batch, s.rows}, "[batch, rows]"}, in.rows);
  auto like_rows = [&](int64_t count) { return empty_like_sizes({s.batch, count, s.features}, in.rows); };
  auto slope = [&](int64_t count) { return like_rows(needs_slopes && count > 0 ? count : 0); };
  auto bound = [&] { return empty_like_sizes({s.batch, needs_bounds ? s.features : 0}, in.rows); };
  return {s,
          like_rows(s.rows),
          bound(),
          bound(),
          like_rows(in.multipliers.has_value() ? s.rows : 0),
          slope(s.negative),
          slope(s.nonnegative)};
}

}  // namespace zonocuda
