// For im2col and its adjoint: the checks on their arguments and their outputs, allocated. One place for both devices.
#pragma once

#include <vector>

#include "../math/im2col.h"
#include "check.h"
#include "window_arguments.h"

namespace zonocuda {

/// The sizes of a convolution as the schema has them, each [z, y, x].
struct Im2colSizes {
  const std::vector<int64_t>&kernel, &stride, &padding, &dilation, &output;
};

/// `input`: [images, channels, z, y, x].
inline Im2col check_im2col(const char* op, const std::vector<int64_t>& input, const Im2colSizes& c) {
  check_list(op, "input_size", input, 5, 0);
  check_list(op, "kernel", c.kernel, 3, 1);
  check_list(op, "stride", c.stride, 3, 1);
  check_list(op, "padding", c.padding, 3, 1 - (int64_t(1) << 31));
  check_list(op, "dilation", c.dilation, 3, 1);
  check_list(op, "output_size", c.output, 3, 0);
  auto axis = [&](int i) {
    return ConvAxis{input[2 + i], c.output[i], c.kernel[i], c.stride[i], c.padding[i], c.dilation[i]};
  };
  const Im2col s{input[0], input[1], axis(0), axis(1), axis(2)};
  auto check_count = [&](const char* what, std::initializer_list<int64_t> sizes) {
    int64_t numbers = 1;
    for (int64_t size : sizes) {
      STD_TORCH_CHECK(size == 0 || numbers < (int64_t(1) << 62) / size, op, ": ", what,
                      " must have fewer than 2^62 numbers");
      numbers *= size == 0 ? 1 : size;
    }
  };
  check_count("the input", {s.images, s.channels, s.z.in, s.y.in, s.x.in});
  check_count("the columns", {s.channels, s.z.kernel, s.y.kernel, s.x.kernel, s.images, s.z.out, s.y.out, s.x.out});
  return s;
}

struct Im2colForward {
  Im2col s;
  Tensor columns;
};

inline Im2colForward prepare_im2col(const Tensor& x, const Im2colSizes& c) {
  const char* op = "im2col";
  check_argument(op, {"x", x, {-1, -1, -1, -1, -1}, "[images, channels, z, y, x]"}, x);
  const Im2col s = check_im2col(op, {x.size(0), x.size(1), x.size(2), x.size(3), x.size(4)}, c);
  return {s, empty_like_sizes({s.rows(), s.columns()}, x)};
}

struct Im2colBackward {
  Im2col s;
  Tensor grad_x;
};

inline Im2colBackward prepare_im2col_backward(const Tensor& grad, const std::vector<int64_t>& input,
                                              const Im2colSizes& c) {
  const char* op = "im2col_backward";
  const Im2col s = check_im2col(op, input, c);
  check_argument(op, {"grad", grad, {s.rows(), s.columns()}, "[channels * taps, images * outputs]"}, grad);
  return {s, empty_like_sizes({s.images, s.channels, s.z.in, s.y.in, s.x.in}, grad)};
}

}  // namespace zonocuda
