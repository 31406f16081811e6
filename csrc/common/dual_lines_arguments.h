// dual_lines: the checks on its arguments and its outputs, allocated. One place for both devices.
#pragma once

#include <optional>

#include "check.h"

namespace zonocuda {

/// What a call is about: rows, and the lines [batch, 1 or rows, features]; without `upper` both have the slope `lower`.
struct DualLinesInputs {
  const Tensor &rows, &lower, &below, &above;
  const std::optional<Tensor>& upper;
};

/// Sizes of dual rows [batch, rows, features], and how many rows each part of the lines has; upper: 0 for none.
struct DualLinesSizes {
  int64_t batch, rows, features, lower, below, above, upper;

  bool empty() const { return batch == 0 || rows == 0; }
  bool one() const { return upper == 0; }
  /// Whether a part has numbers for single entries.
  bool per_row() const { return lower > 1 || below > 1 || above > 1 || upper > 1; }
};

/// How many rows a part of the lines has.
inline int64_t check_line_part(const char* op, const char* name, const Tensor& part, const DualLinesSizes& s,
                               const Tensor& first) {
  check_argument(op, {name, part, {s.batch, -1, s.features}, "[batch, 1 or rows, features]"}, first);
  STD_TORCH_CHECK(part.size(1) == 1 || part.size(1) == s.rows, op, ": ", name,
                  " must have shape [batch, 1 or rows, features], got ", format_shape(part));
  return part.size(1);
}

inline DualLinesSizes check_dual_lines(const char* op, const DualLinesInputs& in) {
  STD_TORCH_CHECK(has_sizes(in.rows, {-1, -1, -1}), op, ": rows must have shape [batch, rows, features], got ",
                  format_shape(in.rows));
  DualLinesSizes s{in.rows.size(0), in.rows.size(1), in.rows.size(2), 0, 0, 0, 0};
  check_argument(op, {"rows", in.rows, {s.batch, s.rows, s.features}, "[batch, rows, features]"}, in.rows);
  s.lower = check_line_part(op, "lower", in.lower, s, in.rows);
  s.below = check_line_part(op, "below", in.below, s, in.rows);
  s.above = check_line_part(op, "above", in.above, s, in.rows);
  s.upper = in.upper.has_value() ? check_line_part(op, "upper", *in.upper, s, in.rows) : 0;
  return s;
}

struct DualLines {
  DualLinesSizes s;
  Tensor rows, low, high;
};

inline DualLines prepare_dual_lines(const DualLinesInputs& in) {
  const DualLinesSizes s = check_dual_lines("dual_lines", in);
  auto constants = [&] { return empty_like_sizes({s.batch, s.rows}, in.rows); };
  return {s, empty_like_sizes({s.batch, s.rows, s.features}, in.rows), constants(), constants()};
}

struct DualLinesBackward {
  DualLinesSizes s;
  Tensor rows, lower, below, above, upper;
};

/// What is not given, or whose gradient nobody wants, gets an empty one [batch, 0, features].
inline DualLinesBackward prepare_dual_lines_backward(const Tensor& grad_rows, const Tensor& grad_low,
                                                     const Tensor& grad_high, const DualLinesInputs& in,
                                                     bool needs_lines) {
  const char* op = "dual_lines_backward";
  const DualLinesSizes s = check_dual_lines(op, in);
  check_argument(op, {"grad_rows", grad_rows, {s.batch, s.rows, s.features}, "[batch, rows, features]"}, in.rows);
  check_argument(op, {"grad_low", grad_low, {s.batch, s.rows}, "[batch, rows]"}, in.rows);
  check_argument(op, {"grad_high", grad_high, {s.batch, s.rows}, "[batch, rows]"}, in.rows);
  auto like_rows = [&](int64_t count) { return empty_like_sizes({s.batch, count, s.features}, in.rows); };
  auto part = [&](int64_t count) { return like_rows(needs_lines ? count : 0); };
  return {s, like_rows(s.rows), part(s.lower), part(s.below), part(s.above), part(s.upper)};
}

}  // namespace zonocuda
