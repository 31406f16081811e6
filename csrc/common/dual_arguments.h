// dual_relu: the checks on its arguments and its outputs, allocated. One place for both devices.
#pragma once

#include <optional>

#include "check.h"

namespace zonocuda {

/// The sizes of dual rows [batch, rows, features], and of their slopes [batch, 1 or rows, features]; -1: no slopes.
struct DualSizes {
  int64_t batch, rows, features, negative, nonnegative;

  bool empty() const { return batch == 0 || rows == 0; }
};

inline int64_t check_dual_slope(const char* op, const char* name, const std::optional<Tensor>& slope,
                                const DualSizes& s, const Tensor& first) {
  if (!slope.has_value()) {
    return -1;
  }
  check_argument(op, {name, *slope, {s.batch, -1, s.features}, "[batch, 1 or rows, features]"}, first);
  const int64_t count = slope->size(1);
  STD_TORCH_CHECK(count == 1 || count == s.rows, op, ": ", name, " must have shape [batch, 1 or rows, features], got ",
                  format_shape(*slope));
  return count;
}

inline DualSizes check_dual_relu(const char* op, const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                 const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative) {
  STD_TORCH_CHECK(has_sizes(rows, {-1, -1, -1}), op, ": rows must have shape [batch, rows, features], got ",
                  format_shape(rows));
  DualSizes s{rows.size(0), rows.size(1), rows.size(2), -1, -1};
  check_argument(op, {"rows", rows, {s.batch, s.rows, s.features}, "[batch, rows, features]"}, rows);
  check_argument(op, {"lower", lower, {s.batch, s.features}, "[batch, features]"}, rows);
  check_argument(op, {"upper", upper, {s.batch, s.features}, "[batch, features]"}, rows);
  s.negative = check_dual_slope(op, "negative", negative, s, rows);
  s.nonnegative = check_dual_slope(op, "nonnegative", nonnegative, s, rows);
  return s;
}

struct DualRelu {
  DualSizes s;
  Tensor rows, low, high;
};

inline DualRelu prepare_dual_relu(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                  const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative) {
  const DualSizes s = check_dual_relu("dual_relu", rows, lower, upper, negative, nonnegative);
  auto constants = [&] { return empty_like_sizes({s.batch, s.rows}, rows); };
  return {s, empty_like_sizes({s.batch, s.rows, s.features}, rows), constants(), constants()};
}

struct DualReluBackward {
  DualSizes s;
  Tensor rows, lower, upper, negative, nonnegative;
};

/// Slopes that are not given, or whose gradient nobody wants, get an empty one [batch, 0, features].
inline DualReluBackward prepare_dual_relu_backward(const Tensor& grad_rows, const Tensor& grad_low,
                                                   const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
                                                   const Tensor& upper, const std::optional<Tensor>& negative,
                                                   const std::optional<Tensor>& nonnegative, bool needs_slopes) {
  const char* op = "dual_relu_backward";
  const DualSizes s = check_dual_relu(op, rows, lower, upper, negative, nonnegative);
  check_argument(op, {"grad_rows", grad_rows, {s.batch, s.rows, s.features}, "[batch, rows, features]"}, rows);
  check_argument(op, {"grad_low", grad_low, {s.batch, s.rows}, "[batch, rows]"}, rows);
  check_argument(op, {"grad_high", grad_high, {s.batch, s.rows}, "[batch, rows]"}, rows);
  auto slope = [&](int64_t count) {
    return empty_like_sizes({s.batch, needs_slopes && count > 0 ? count : 0, s.features}, rows);
  };
  auto bound = [&] { return empty_like_sizes({s.batch, needs_slopes ? s.features : 0}, rows); };
  return {s,
          empty_like_sizes({s.batch, s.rows, s.features}, rows),
          bound(),
          bound(),
          slope(s.negative),
          slope(s.nonnegative)};
}

}  // namespace zonocuda
