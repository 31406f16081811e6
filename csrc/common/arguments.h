// For each op: the checks on its arguments and its outputs, allocated. One place for both devices.
#pragma once

#include <optional>
#include <utility>

#include "check.h"

namespace zonocuda {

// ---- concretize ----------------------------------------------------------------------------------------------------

struct Concretize {
  Sizes s;
  Tensor lower, upper;
};

inline Concretize prepare_concretize(const Tensor& center, const Tensor& generators) {
  const Sizes s = check_generators("concretize", generators);
  check_argument("concretize", {"center", center, {s.batch, s.features}, "[batch, features]"}, generators);
  return {s, empty_like_sizes({s.batch, s.features}, center), empty_like_sizes({s.batch, s.features}, center)};
}

struct ConcretizeBackward {
  Sizes s;
  Tensor grad_center, grad_generators;
};

inline ConcretizeBackward prepare_concretize_backward(const Tensor& grad_lower, const Tensor& grad_upper,
                                                      const Tensor& generators) {
  const char* op = "concretize_backward";
  const Sizes s = check_generators(op, generators);
  check_argument(op, {"grad_lower", grad_lower, {s.batch, s.features}, "[batch, features]"}, generators);
  check_argument(op, {"grad_upper", grad_upper, {s.batch, s.features}, "[batch, features]"}, generators);
  return {s, empty_like_sizes({s.batch, s.features}, generators),
          empty_like_sizes({s.batch, s.symbols, s.features}, generators)};
}

// ---- relu ----------------------------------------------------------------------------------------------------------

struct Relu {
  Sizes s;
  bool external;              // l and u are given
  Tensor center, generators;  // in place: the op's own arguments
  Tensor offset, lower, upper;
};

inline void check_slope(const char* op, const std::optional<Tensor>& slope, const Sizes& s, const Tensor& first) {
  if (slope.has_value()) {
    check_argument(op, {"slope", *slope, {s.batch, s.features}, "[batch, features]"}, first);
  }
}

inline Sizes check_relu(const char* op, const Tensor& center, const Tensor& generators,
                        const std::optional<Tensor>& slope, const std::optional<Tensor>& lower,
                        const std::optional<Tensor>& upper) {
  const Sizes s = check_generators(op, generators);
  check_argument(op, {"center", center, {s.batch, s.features}, "[batch, features]"}, generators);
  check_slope(op, slope, s, generators);
  STD_TORCH_CHECK(lower.has_value() == upper.has_value(), op, ": lower and upper must be given together");
  if (lower.has_value()) {
    check_argument(op, {"lower", *lower, {s.batch, s.features}, "[batch, features]"}, generators);
    check_argument(op, {"upper", *upper, {s.batch, s.features}, "[batch, features]"}, generators);
  }
  return s;
}

inline Relu prepare_relu(const Tensor& center, const Tensor& generators, const std::optional<Tensor>& slope,
                         const std::optional<Tensor>& lower, const std::optional<Tensor>& upper) {
  const Sizes s = check_relu("relu", center, generators, slope, lower, upper);
  auto neurons = [&] { return empty_like_sizes({s.batch, s.features}, center); };
  return {s,         lower.has_value(), neurons(), empty_like_sizes({s.batch, s.symbols, s.features}, generators),
          neurons(), neurons(),         neurons()};
}

inline Relu prepare_relu_in_place(const Tensor& center, const Tensor& generators, const std::optional<Tensor>& slope,
                                  const std::optional<Tensor>& lower, const std::optional<Tensor>& upper) {
  const char* op = "relu_";
  const Sizes s = check_relu(op, center, generators, slope, lower, upper);
  check_apart(op, "generators", generators, "center", center);
  for (const auto& [name, given] : {std::pair{"slope", &slope}, {"lower", &lower}, {"upper", &upper}}) {
    if (given->has_value()) {
      check_apart(op, "center", center, name, **given);
      check_apart(op, "generators", generators, name, **given);
    }
  }
  auto neurons = [&] { return empty_like_sizes({s.batch, s.features}, center); };
  return {s, lower.has_value(), center, generators, neurons(), neurons(), neurons()};
}

struct ReluBackward {
  Sizes s;
  Tensor grad_center, grad_generators, grad_slope, grad_lower, grad_upper;
};

inline ReluBackward prepare_relu_backward(const Tensor& grad_center, const Tensor& grad_generators,
                                          const Tensor& grad_offset, const Tensor& center, const Tensor& generators,
                                          const Tensor& lower, const Tensor& upper, const std::optional<Tensor>& slope,
                                          bool needs_generators) {
  const char* op = "relu_backward";
  const Sizes s = check_generators(op, generators);
  check_argument(op,
                 {"grad_generators", grad_generators, {s.batch, s.symbols, s.features}, "[batch, symbols, features]"},
                 generators);
  check_argument(op, {"grad_center", grad_center, {s.batch, s.features}, "[batch, features]"}, generators);
  check_argument(op, {"grad_offset", grad_offset, {s.batch, s.features}, "[batch, features]"}, generators);
  check_argument(op, {"center", center, {s.batch, s.features}, "[batch, features]"}, generators);
  check_argument(op, {"lower", lower, {s.batch, s.features}, "[batch, features]"}, generators);
  check_argument(op, {"upper", upper, {s.batch, s.features}, "[batch, features]"}, generators);
  check_slope(op, slope, s, generators);
  auto neurons = [&] { return empty_like_sizes({s.batch, s.features}, center); };
  return {s,         neurons(), empty_like_sizes({s.batch, s.symbols, needs_generators ? s.features : 0}, generators),
          neurons(), neurons(), neurons()};
}

// ---- relu_relaxation -----------------------------------------------------------------------------------------------

struct ReluRelaxation {
  int64_t count;
  Tensor multiplier, offset;
};

inline Sizes check_bounds(const char* op, const Tensor& lower, const Tensor& upper,
                          const std::optional<Tensor>& slope) {
  STD_TORCH_CHECK(has_sizes(lower, {-1, -1}), op, ": lower must have shape [batch, features], got ",
                  format_shape(lower));
  const Sizes s{lower.size(0), 0, lower.size(1)};
  check_argument(op, {"lower", lower, {s.batch, s.features}, "[batch, features]"}, lower);
  check_argument(op, {"upper", upper, {s.batch, s.features}, "[batch, features]"}, lower);
  check_slope(op, slope, s, lower);
  return s;
}

inline ReluRelaxation prepare_relu_relaxation(const Tensor& lower, const Tensor& upper,
                                              const std::optional<Tensor>& slope) {
  const Sizes s = check_bounds("relu_relaxation", lower, upper, slope);
  return {s.batch * s.features, empty_like_sizes({s.batch, s.features}, lower),
          empty_like_sizes({s.batch, s.features}, lower)};
}

struct ReluRelaxationBackward {
  int64_t count;
  Tensor grad_slope, grad_lower, grad_upper;
};

inline ReluRelaxationBackward prepare_relu_relaxation_backward(const Tensor& grad_multiplier, const Tensor& grad_offset,
                                                               const Tensor& lower, const Tensor& upper,
                                                               const std::optional<Tensor>& slope) {
  const char* op = "relu_relaxation_backward";
  const Sizes s = check_bounds(op, lower, upper, slope);
  check_argument(op, {"grad_multiplier", grad_multiplier, {s.batch, s.features}, "[batch, features]"}, lower);
  check_argument(op, {"grad_offset", grad_offset, {s.batch, s.features}, "[batch, features]"}, lower);
  auto neurons = [&] { return empty_like_sizes({s.batch, s.features}, lower); };
  return {s.batch * s.features, neurons(), neurons(), neurons()};
}

// ---- scale ---------------------------------------------------------------------------------------------------------

struct Scale {
  Sizes s;
  Tensor generators;
};

inline Sizes check_scale(const char* op, const Tensor& generators, const Tensor& multiplier) {
  const Sizes s = check_generators(op, generators);
  check_argument(op, {"multiplier", multiplier, {s.batch, s.features}, "[batch, features]"}, generators);
  return s;
}

inline Scale prepare_scale(const Tensor& generators, const Tensor& multiplier) {
  const Sizes s = check_scale("scale", generators, multiplier);
  return {s, empty_like_sizes({s.batch, s.symbols, s.features}, generators)};
}

inline Scale prepare_scale_in_place(const Tensor& generators, const Tensor& multiplier) {
  const Sizes s = check_scale("scale_", generators, multiplier);
  check_apart("scale_", "generators", generators, "multiplier", multiplier);
  return {s, generators};
}

struct ScaleBackward {
  Sizes s;
  Tensor grad_generators, grad_multiplier;
};

inline ScaleBackward prepare_scale_backward(const Tensor& grad, const Tensor& generators, const Tensor& multiplier,
                                            bool needs_generators) {
  const char* op = "scale_backward";
  const Sizes s = check_generators(op, generators);
  check_argument(op, {"grad", grad, {s.batch, s.symbols, s.features}, "[batch, symbols, features]"}, generators);
  check_argument(op, {"multiplier", multiplier, {s.batch, s.features}, "[batch, features]"}, generators);
  return {s, empty_like_sizes({s.batch, s.symbols, needs_generators ? s.features : 0}, generators),
          empty_like_sizes({s.batch, s.features}, generators)};
}

// ---- diagonal_linear -----------------------------------------------------------------------------------------------

struct DiagonalLinear {
  int64_t batch, symbols, in, out;
  Tensor result;
};

inline DiagonalLinear check_diagonal_linear(const char* op, const Tensor& coefficients, const Tensor& index,
                                            const Tensor& weight) {
  STD_TORCH_CHECK(has_sizes(coefficients, {-1, -1}), op, ": coefficients must have shape [batch, symbols], got ",
                  format_shape(coefficients));
  check_argument(op, {"coefficients", coefficients, {-1, -1}, "[batch, symbols]"}, coefficients);
  check_argument(op, {"weight", weight, {-1, -1}, "[out, in]"}, coefficients);
  check_index(op, index, coefficients.size(1), coefficients);
  return {coefficients.size(0), coefficients.size(1), weight.size(1), weight.size(0), coefficients};
}

inline DiagonalLinear prepare_diagonal_linear(const Tensor& coefficients, const Tensor& index, const Tensor& weight) {
  DiagonalLinear d = check_diagonal_linear("diagonal_linear", coefficients, index, weight);
  d.result = empty_like_sizes({d.batch, d.symbols, d.out}, coefficients);
  return d;
}

struct DiagonalLinearBackward {
  int64_t batch, symbols, in, out;
  Tensor grad_coefficients, grad_weight;
};

inline DiagonalLinearBackward prepare_diagonal_linear_backward(const Tensor& grad, const Tensor& coefficients,
                                                               const Tensor& index, const Tensor& weight,
                                                               bool needs_weight) {
  const char* op = "diagonal_linear_backward";
  const DiagonalLinear d = check_diagonal_linear(op, coefficients, index, weight);
  check_argument(op, {"grad", grad, {d.batch, d.symbols, d.out}, "[batch, symbols, out]"}, coefficients);
  Tensor grad_weight = empty_like_sizes({d.out, needs_weight ? d.in : 0}, coefficients);
  torch::stable::zero_(grad_weight);
  return {d.batch, d.symbols, d.in, d.out, empty_like_sizes({d.batch, d.symbols}, coefficients), grad_weight};
}

// ---- error_block ---------------------------------------------------------------------------------------------------

struct ErrorBlock {
  Sizes s;
  Tensor generators;
};

inline ErrorBlock prepare_error_block(const Tensor& coefficients, const Tensor& index, int64_t features) {
  const char* op = "error_block";
  check_argument(op, {"coefficients", coefficients, {-1, -1}, "[batch, symbols]"}, coefficients);
  check_index(op, index, coefficients.size(1), coefficients);
  STD_TORCH_CHECK(features >= 0, op, ": features must not be negative, got ", features);
  const Sizes s{coefficients.size(0), coefficients.size(1), features};
  return {s, empty_like_sizes({s.batch, s.symbols, s.features}, coefficients)};
}

struct ErrorBlockBackward {
  Sizes s;
  Tensor grad_coefficients;
};

inline ErrorBlockBackward prepare_error_block_backward(const Tensor& grad, const Tensor& index) {
  const char* op = "error_block_backward";
  const Sizes s = check_generators(op, grad);
  check_index(op, index, s.symbols, grad);
  return {s, empty_like_sizes({s.batch, s.symbols}, grad)};
}

}  // namespace zonocuda
