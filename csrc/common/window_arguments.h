// For each op on windowed generators: the checks on its arguments and its outputs, allocated. One place for both
// devices.
#pragma once

#include <vector>

#include "../math/window.h"
#include "check.h"

namespace zonocuda {

/// Checks patches and corners; the map's height and width are still unknown.
inline Windows check_windows(const char* op, const Tensor& patches, const Tensor& corners) {
  STD_TORCH_CHECK(has_sizes(patches, {-1, -1, -1, -1, -1}), op,
                  ": patches must have shape [batch, symbols, channels, rows, columns], got ", format_shape(patches));
  STD_TORCH_CHECK(patches.is_contiguous(), op, ": patches must be contiguous");
  const int64_t symbols = patches.size(1);
  STD_TORCH_CHECK(has_sizes(corners, {symbols, 2}), op, ": corners must have shape [symbols, 2] = [", symbols,
                  ", 2], got ", format_shape(corners));
  STD_TORCH_CHECK(corners.scalar_type() == ScalarType::Long, op, ": corners must have dtype int64, got ",
                  torch::headeronly::toString(corners.scalar_type()));
  STD_TORCH_CHECK(corners.is_contiguous(), op, ": corners must be contiguous");
  STD_TORCH_CHECK(corners.device() == patches.device(), op, ": corners must be on the device of the other tensors");
  return {patches.size(0), symbols, patches.size(2), patches.size(3), patches.size(4), 0, 0};
}

inline Windows with_map(const char* op, Windows s, int64_t height, int64_t width) {
  STD_TORCH_CHECK(height >= 0 && width >= 0, op, ": height and width must not be negative, got ", height, " and ",
                  width);
  s.height = height;
  s.width = width;
  return s;
}

inline Tensor new_map(const Windows& s, const Tensor& like) {
  return empty_like_sizes({s.batch, s.channels, s.height, s.width}, like);
}

inline Tensor new_patches(const Windows& s, const Tensor& like) {
  return empty_like_sizes({s.batch, s.symbols, s.channels, s.rows, s.columns}, like);
}

/// Checks `map`, named `name`, against patches whose map is still unknown, and answers the sizes with it.
inline Windows check_map(const char* op, Windows s, const char* name, const Tensor& map, const Tensor& first) {
  check_argument(op, {name, map, {s.batch, s.channels, -1, -1}, "[batch, channels, height, width]"}, first);
  return with_map(op, s, map.size(2), map.size(3));
}

inline void check_patches(const char* op, const Windows& s, const char* name, const Tensor& patches,
                          const Tensor& first) {
  check_argument(
      op,
      {name, patches, {s.batch, s.symbols, s.channels, s.rows, s.columns}, "[batch, symbols, channels, rows, columns]"},
      first);
}

// ---- window_radius -------------------------------------------------------------------------------------------------

struct WindowRadius {
  Windows s;
  Tensor radius;
};

inline WindowRadius prepare_window_radius(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  const char* op = "window_radius";
  const Windows s = with_map(op, check_windows(op, patches, corners), height, width);
  return {s, new_map(s, patches)};
}

struct WindowRadiusBackward {
  Windows s;
  Tensor grad_patches;
};

inline WindowRadiusBackward prepare_window_radius_backward(const Tensor& grad, const Tensor& patches,
                                                           const Tensor& corners) {
  const char* op = "window_radius_backward";
  const Windows s = check_map(op, check_windows(op, patches, corners), "grad", grad, patches);
  return {s, new_patches(s, patches)};
}

// ---- window_scale --------------------------------------------------------------------------------------------------

struct WindowScale {
  Windows s;
  Tensor patches;
};

inline WindowScale prepare_window_scale(const Tensor& patches, const Tensor& corners, const Tensor& multiplier) {
  const char* op = "window_scale";
  const Windows s = check_map(op, check_windows(op, patches, corners), "multiplier", multiplier, patches);
  return {s, new_patches(s, patches)};
}

inline WindowScale prepare_window_scale_in_place(const Tensor& patches, const Tensor& corners,
                                                 const Tensor& multiplier) {
  const char* op = "window_scale_";
  const Windows s = check_map(op, check_windows(op, patches, corners), "multiplier", multiplier, patches);
  check_apart(op, "patches", patches, "multiplier", multiplier);
  check_apart(op, "patches", patches, "corners", corners);
  return {s, patches};
}

struct WindowScaleBackward {
  Windows s;
  Tensor grad_patches, grad_multiplier;
};

/// A gradient that is not needed has no columns.
inline WindowScaleBackward prepare_window_scale_backward(const Tensor& grad, const Tensor& patches,
                                                         const Tensor& corners, const Tensor& multiplier,
                                                         bool needs_patches, bool needs_multiplier) {
  const char* op = "window_scale_backward";
  const Windows s = check_map(op, check_windows(op, patches, corners), "multiplier", multiplier, patches);
  check_patches(op, s, "grad", grad, patches);
  return {s, empty_like_sizes({s.batch, s.symbols, s.channels, s.rows, needs_patches ? s.columns : 0}, patches),
          empty_like_sizes({s.batch, s.channels, s.height, needs_multiplier ? s.width : 0}, patches)};
}

// ---- window_dense --------------------------------------------------------------------------------------------------

struct WindowDense {
  Windows s;
  Tensor generators;
};

inline WindowDense prepare_window_dense(const Tensor& patches, const Tensor& corners, int64_t height, int64_t width) {
  const char* op = "window_dense";
  const Windows s = with_map(op, check_windows(op, patches, corners), height, width);
  return {s, empty_like_sizes({s.batch, s.symbols, s.channels, s.height, s.width}, patches)};
}

struct WindowDenseBackward {
  Windows s;
  Tensor grad_patches;
};

inline WindowDenseBackward prepare_window_dense_backward(const Tensor& grad, const Tensor& corners, int64_t rows,
                                                         int64_t columns) {
  const char* op = "window_dense_backward";
  STD_TORCH_CHECK(rows >= 0 && columns >= 0, op, ": rows and columns must not be negative, got ", rows, " and ",
                  columns);
  STD_TORCH_CHECK(has_sizes(grad, {-1, -1, -1, -1, -1}), op,
                  ": grad must have shape [batch, symbols, channels, height, width], got ", format_shape(grad));
  const Windows of_grad = check_windows(op, grad, corners);
  const Windows s{of_grad.batch, of_grad.symbols, of_grad.channels, rows, columns, grad.size(3), grad.size(4)};
  return {s, new_patches(s, grad)};
}

// ---- diagonal_conv -------------------------------------------------------------------------------------------------

/// The sizes of a convolution as the schema has them: input [channels, height, width]; the others [y, x].
struct ConvSizes {
  const std::vector<int64_t>&input, &stride, &padding, &dilation, &output;
  int64_t groups;
};

inline void check_list(const char* op, const char* name, const std::vector<int64_t>& list, size_t count,
                       int64_t least) {
  STD_TORCH_CHECK(list.size() == count, op, ": ", name, " must have ", count, " numbers, got ", list.size());
  for (int64_t value : list) {
    STD_TORCH_CHECK(value >= least && value < (int64_t(1) << 31), op, ": ", name, " must lie in [", least,
                    ", 2^31), got ", value);
  }
}

inline DiagonalConv check_diagonal_conv(const char* op, const Tensor& coefficients, const Tensor& index,
                                        const Tensor& weight, const ConvSizes& c) {
  STD_TORCH_CHECK(has_sizes(coefficients, {-1, -1}), op, ": coefficients must have shape [batch, symbols], got ",
                  format_shape(coefficients));
  check_argument(op, {"coefficients", coefficients, {-1, -1}, "[batch, symbols]"}, coefficients);
  check_index(op, index, coefficients.size(1), coefficients);
  check_argument(op, {"weight", weight, {-1, -1, -1, -1}, "[outputs, channels / groups, rows, columns]"}, coefficients);
  check_list(op, "input_size", c.input, 3, 0);
  check_list(op, "stride", c.stride, 2, 1);
  check_list(op, "padding", c.padding, 2, 1 - (int64_t(1) << 31));
  check_list(op, "dilation", c.dilation, 2, 1);
  check_list(op, "output_size", c.output, 2, 0);
  STD_TORCH_CHECK(c.groups >= 1 && c.groups < (int64_t(1) << 31) && weight.size(0) % c.groups == 0, op,
                  ": groups must divide the ", weight.size(0), " outputs, got ", c.groups);
  STD_TORCH_CHECK(weight.size(1) <= c.input[0] && weight.size(1) * c.groups == c.input[0], op, ": weight has ",
                  weight.size(1), " channels for each of ", c.groups, " groups, the input has ", c.input[0]);
  STD_TORCH_CHECK(c.input[0] == 0 || c.input[1] * c.input[2] < (int64_t(1) << 62) / c.input[0], op,
                  ": the input must have fewer than 2^62 neurons");
  STD_TORCH_CHECK(weight.size(2) >= 1 && weight.size(3) >= 1, op, ": the kernel must not be empty, got ",
                  format_shape(weight));
  STD_TORCH_CHECK(weight.size(2) < (int64_t(1) << 31) && weight.size(3) < (int64_t(1) << 31), op,
                  ": the kernel must be smaller than 2^31, got ", format_shape(weight));
  auto axis = [&](int i) {
    return ConvAxis{c.input[1 + i], c.output[i], weight.size(2 + i), c.stride[i], c.padding[i], c.dilation[i]};
  };
  return {coefficients.size(0), coefficients.size(1), c.input[0], weight.size(0), c.groups, axis(0), axis(1)};
}

struct DiagonalConvForward {
  DiagonalConv s;
  Tensor patches;
};

inline DiagonalConvForward prepare_diagonal_conv(const Tensor& coefficients, const Tensor& index, const Tensor& weight,
                                                 const ConvSizes& c) {
  const DiagonalConv s = check_diagonal_conv("diagonal_conv", coefficients, index, weight, c);
  return {s, empty_like_sizes({s.batch, s.symbols, s.outputs, s.y.window(), s.x.window()}, coefficients)};
}

struct DiagonalConvBackward {
  DiagonalConv s;
  Tensor grad_coefficients, grad_weight;
};

/// The gradient of the weight is zero-filled; where it is not needed, it has no columns.
inline DiagonalConvBackward prepare_diagonal_conv_backward(const Tensor& grad, const Tensor& coefficients,
                                                           const Tensor& index, const Tensor& weight,
                                                           const ConvSizes& c, bool needs_weight) {
  const char* op = "diagonal_conv_backward";
  const DiagonalConv s = check_diagonal_conv(op, coefficients, index, weight, c);
  check_argument(op,
                 {"grad",
                  grad,
                  {s.batch, s.symbols, s.outputs, s.y.window(), s.x.window()},
                  "[batch, symbols, outputs, rows, columns]"},
                 coefficients);
  Tensor grad_weight =
      empty_like_sizes({s.outputs, s.group_inputs(), s.y.kernel, needs_weight ? s.x.kernel : 0}, coefficients);
  torch::stable::zero_(grad_weight);
  return {s, empty_like_sizes({s.batch, s.symbols}, coefficients), grad_weight};
}

}  // namespace zonocuda
