// The schemas of all ops. A name with a leading underscore is the backward of the op above it; one with a trailing
// underscore writes into its first arguments, and has no derivative.
// `kink` and `kink_tolerance` choose the derivative at lam = u / (u - l); the forward ops only hand them on.
// Shapes: center, lower, upper, slope, multiplier, offset [batch, features]; generators [batch, symbols, features].
#include "common/stable.h"

STABLE_TORCH_LIBRARY(zonocuda, m) {
  m.def("concretize(Tensor center, Tensor generators) -> (Tensor lower, Tensor upper)");
  m.def(
      "_concretize_backward(Tensor grad_lower, Tensor grad_upper, Tensor generators) "
      "-> (Tensor grad_center, Tensor grad_generators)");

  m.def(
      "relu(Tensor center, Tensor generators, Tensor? slope, Tensor? lower, Tensor? upper, "
      "int kink, float kink_tolerance) -> (Tensor center, Tensor generators, Tensor offset, Tensor lower, Tensor "
      "upper)");
  m.def(
      "_relu_backward(Tensor grad_center, Tensor grad_generators, Tensor grad_offset, Tensor center, "
      "Tensor generators, Tensor lower, Tensor upper, Tensor? slope, int kink, float kink_tolerance, bool external, "
      "bool needs_generators, bool needs_slope) -> (Tensor grad_center, Tensor grad_generators, Tensor grad_slope, "
      "Tensor grad_lower, Tensor grad_upper)");

  m.def(
      "relu_(Tensor(a!) center, Tensor(b!) generators, Tensor? slope, Tensor? lower, Tensor? upper) "
      "-> (Tensor offset, Tensor lower, Tensor upper)");

  m.def(
      "relu_relaxation(Tensor lower, Tensor upper, Tensor? slope, int kink, float kink_tolerance) "
      "-> (Tensor multiplier, Tensor offset)");
  m.def(
      "_relu_relaxation_backward(Tensor grad_multiplier, Tensor grad_offset, Tensor lower, Tensor upper, "
      "Tensor? slope, int kink, float kink_tolerance) -> (Tensor grad_slope, Tensor grad_lower, Tensor grad_upper)");

  // rows [batch, rows, features], slopes [batch, 1 or rows, features], low and high [batch, rows].
  m.def(
      "dual_relu(Tensor rows, Tensor lower, Tensor upper, Tensor? negative, Tensor? nonnegative, int kink, "
      "float kink_tolerance) -> (Tensor rows, Tensor low, Tensor high)");
  m.def(
      "_dual_relu_backward(Tensor grad_rows, Tensor grad_low, Tensor grad_high, Tensor rows, Tensor lower, "
      "Tensor upper, Tensor? negative, Tensor? nonnegative, int kink, float kink_tolerance, bool needs_slopes) "
      "-> (Tensor grad_rows, Tensor grad_lower, Tensor grad_upper, Tensor grad_negative, Tensor grad_nonnegative)");

  // splits and multipliers [batch, rows, features].
  m.def(
      "dual_split(Tensor rows, Tensor lower, Tensor upper, Tensor splits, Tensor? multipliers, Tensor? negative, "
      "Tensor? nonnegative, int kink, float kink_tolerance) -> (Tensor rows, Tensor low)");
  m.def(
      "_dual_split_backward(Tensor grad_rows, Tensor grad_low, Tensor rows, Tensor lower, Tensor upper, "
      "Tensor splits, Tensor? multipliers, Tensor? negative, Tensor? nonnegative, int kink, float kink_tolerance, "
      "bool needs_bounds, bool needs_slopes) -> (Tensor grad_rows, Tensor grad_lower, Tensor grad_upper, "
      "Tensor grad_multipliers, Tensor grad_negative, Tensor grad_nonnegative)");

  // The lines [batch, 1 or rows, features] each: slope and offset of the lower line, offset and slope of the upper one,
  // which without one of its own has the slope of the lower.
  m.def(
      "dual_lines(Tensor rows, Tensor lower, Tensor below, Tensor above, Tensor? upper) "
      "-> (Tensor rows, Tensor low, Tensor high)");
  m.def(
      "_dual_lines_backward(Tensor grad_rows, Tensor grad_low, Tensor grad_high, Tensor rows, Tensor lower, "
      "Tensor below, Tensor above, Tensor? upper, bool needs_lines) "
      "-> (Tensor grad_rows, Tensor grad_lower, Tensor grad_below, Tensor grad_above, Tensor grad_upper)");

  m.def("scale(Tensor generators, Tensor multiplier) -> Tensor");
  m.def(
      "_scale_backward(Tensor grad, Tensor generators, Tensor multiplier, bool needs_generators, "
      "bool needs_multiplier) -> (Tensor grad_generators, Tensor grad_multiplier)");
  m.def("scale_(Tensor(a!) generators, Tensor multiplier) -> ()");

  m.def("diagonal_linear(Tensor coefficients, Tensor index, Tensor weight) -> Tensor");
  m.def(
      "_diagonal_linear_backward(Tensor grad, Tensor coefficients, Tensor index, Tensor weight, bool needs_weight) "
      "-> (Tensor grad_coefficients, Tensor grad_weight)");

  m.def("error_block(Tensor coefficients, Tensor index, SymInt features) -> Tensor");
  m.def("_error_block_backward(Tensor grad, Tensor index) -> Tensor");

  // Windowed generators: patches [batch, symbols, channels, rows, columns], corners [symbols, 2], maps and multiplier
  // [batch, channels, height, width].
  m.def("window_radius(Tensor patches, Tensor corners, SymInt height, SymInt width) -> Tensor");
  m.def("_window_radius_backward(Tensor grad, Tensor patches, Tensor corners) -> Tensor");

  m.def("window_scale(Tensor patches, Tensor corners, Tensor multiplier) -> Tensor");
  m.def(
      "_window_scale_backward(Tensor grad, Tensor patches, Tensor corners, Tensor multiplier, bool needs_patches, "
      "bool needs_multiplier) -> (Tensor grad_patches, Tensor grad_multiplier)");
  m.def("window_scale_(Tensor(a!) patches, Tensor corners, Tensor multiplier) -> ()");

  m.def("window_dense(Tensor patches, Tensor corners, SymInt height, SymInt width) -> Tensor");
  m.def("_window_dense_backward(Tensor grad, Tensor corners, SymInt rows, SymInt columns) -> Tensor");

  m.def(
      "diagonal_conv(Tensor coefficients, Tensor index, Tensor weight, SymInt[] input_size, SymInt[] stride, "
      "SymInt[] padding, SymInt[] dilation, SymInt groups, SymInt[] output_size) -> Tensor");
  m.def(
      "_diagonal_conv_backward(Tensor grad, Tensor coefficients, Tensor index, Tensor weight, SymInt[] input_size, "
      "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, SymInt[] output_size, bool needs_weight) "
      "-> (Tensor grad_coefficients, Tensor grad_weight)");

  // x [images, channels, z, y, x], columns [channels * taps, images * outputs], the lists [z, y, x]. The backward of
  // im2col, col2im, is linear too, and im2col is its backward.
  m.def(
      "im2col(Tensor x, SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt[] output_size) "
      "-> Tensor");
  m.def(
      "_im2col_backward(Tensor grad, SymInt[] input_size, SymInt[] kernel, SymInt[] stride, SymInt[] padding, "
      "SymInt[] dilation, SymInt[] output_size) -> Tensor");

  // Elementary functions with a proven error, by their number in csrc/math/elementary.h, of any shape. parameter: alpha
  // or the exponent. rounding: 0 to nearest, 1 down (a lower bound of the function), 2 up.
  m.def("elementary(Tensor x, int function, float parameter, int rounding) -> Tensor");
  m.def("_elementary_backward(Tensor grad, Tensor x, int function, float parameter) -> Tensor");

  // Functions with a chosen derivative on their kinks, in 16-bit dtypes too. The forward ops record the routing (signs,
  // sides, winners) and only hand the choice on; the backward ops apply it. winners: one bit for each element that
  // attains the maximum, 32 to a word.
  m.def("nonsmooth_relu(Tensor x, float left, float at_zero) -> Tensor");
  m.def("_nonsmooth_relu_backward(Tensor grad, Tensor x, float left, float at_zero) -> Tensor");

  m.def("nonsmooth_maximum(Tensor a, Tensor b, float first) -> (Tensor values, Tensor sides)");
  m.def("_nonsmooth_maximum_backward(Tensor grad, Tensor sides, float first) -> (Tensor grad_a, Tensor grad_b)");

  // x [outer, length, inner], values [outer, inner], winners [outer, words, inner].
  m.def("nonsmooth_max(Tensor x, float first, float last, float even) -> (Tensor values, Tensor winners)");
  m.def(
      "_nonsmooth_max_backward(Tensor grad, Tensor winners, SymInt length, float first, float last, float even) "
      "-> Tensor");

  // x [images, height, width, inner], values [images, rows, columns, inner], winners [words, *values].
  m.def(
      "nonsmooth_max_pool2d(Tensor x, SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
      "SymInt[] output_size, float first, float last, float even) -> (Tensor values, Tensor winners)");
  m.def(
      "_nonsmooth_max_pool2d_backward(Tensor grad, Tensor winners, SymInt[] input_size, SymInt[] kernel, "
      "SymInt[] stride, SymInt[] padding, SymInt[] dilation, float first, float last, float even) -> Tensor");
}
