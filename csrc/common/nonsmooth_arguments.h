// For each op with a chosen derivative: the checks on its arguments and its outputs, allocated.
#pragma once

#include <vector>

#include "../math/index.h"
#include "../math/nonsmooth.h"
#include "check.h"

namespace zonocuda {

/// A tensor of another dtype than `like`, on its device.
inline Tensor empty_of_dtype(const std::vector<int64_t>& sizes, ScalarType dtype, const Tensor& like) {
  return in_huge_pages(
      torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()), dtype));
}

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  std::vector<int64_t> sizes(t.dim());
  for (size_t d = 0; d < sizes.size(); ++d) {
    sizes[d] = t.size(int64_t(d));
  }
  return sizes;
}

/// A tensor of `like`'s sizes and dtype, contiguous.
inline Tensor empty_like_tensor(const Tensor& like) { return empty_of_dtype(sizes_of(like), like.scalar_type(), like); }

/// Any shape, but that of `first`; dtype, device and contiguity as check_argument has them.
inline void check_same(const char* op, const char* name, const Tensor& t, const Tensor& first) {
  STD_TORCH_CHECK(sizes_of(t) == sizes_of(first), op, ": ", name, " must have shape ", format_shape(first), ", got ",
                  format_shape(t));
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
  STD_TORCH_CHECK(t.device() == first.device(), op, ": ", name, " must be on the device of the other tensors");
  STD_TORCH_CHECK(t.scalar_type() == first.scalar_type(), op, ": ", name, " must have the other tensors' dtype ",
                  torch::headeronly::toString(first.scalar_type()), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
}

/// What a forward pass recorded: a dtype of its own, the device of `first`.
inline void check_record(const char* op, const char* name, const Tensor& t, ScalarType dtype,
                         const std::vector<int64_t>& sizes, const Tensor& first) {
  STD_TORCH_CHECK(t.scalar_type() == dtype, op, ": ", name, " must have dtype ", torch::headeronly::toString(dtype),
                  ", got ", torch::headeronly::toString(t.scalar_type()));
  STD_TORCH_CHECK(sizes_of(t) == sizes, op, ": ", name, " has the wrong shape ", format_shape(t));
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
  STD_TORCH_CHECK(t.device() == first.device(), op, ": ", name, " must be on the device of the other tensors");
}

// ---- nonsmooth_max -------------------------------------------------------------------------------------------------

struct MaxSizes {
  int64_t outer, length, inner;

  int64_t words() const { return word_count(length); }
};

struct NonsmoothMax {
  MaxSizes s;
  Tensor values, winners;
};

inline NonsmoothMax prepare_nonsmooth_max(const Tensor& x) {
  const char* op = "nonsmooth_max";
  STD_TORCH_CHECK(has_sizes(x, {-1, -1, -1}), op, ": x must have shape [outer, length, inner], got ", format_shape(x));
  check_same(op, "x", x, x);
  const MaxSizes s{x.size(0), x.size(1), x.size(2)};
  STD_TORCH_CHECK(s.length > 0, op, ": the dimension must not be empty");
  return {s, empty_like_sizes({s.outer, s.inner}, x),
          empty_of_dtype({s.outer, s.words(), s.inner}, ScalarType::Int, x)};
}

struct NonsmoothMaxBackward {
  MaxSizes s;
  Tensor grad_x;
};

inline NonsmoothMaxBackward prepare_nonsmooth_max_backward(const Tensor& grad, const Tensor& winners, int64_t length) {
  const char* op = "nonsmooth_max_backward";
  STD_TORCH_CHECK(has_sizes(grad, {-1, -1}), op, ": grad must have shape [outer, inner], got ", format_shape(grad));
  check_same(op, "grad", grad, grad);
  STD_TORCH_CHECK(length > 0, op, ": length must be positive, got ", length);
  const MaxSizes s{grad.size(0), length, grad.size(1)};
  check_record(op, "winners", winners, ScalarType::Int, {s.outer, s.words(), s.inner}, grad);
  return {s, empty_like_sizes({s.outer, s.length, s.inner}, grad)};
}

// ---- nonsmooth_max_pool2d ------------------------------------------------------------------------------------------

/// The sizes of a pooling as the schema has them, [y, x].
struct PoolSizes {
  const std::vector<int64_t>&kernel, &stride, &padding, &dilation;
};

inline void check_pool_list(const char* op, const char* name, const std::vector<int64_t>& list, int64_t least) {
  STD_TORCH_CHECK(list.size() == 2, op, ": ", name, " must have 2 numbers, got ", list.size());
  for (int64_t value : list) {
    STD_TORCH_CHECK(value >= least && value < (int64_t(1) << 20), op, ": ", name, " must lie in [", least,
                    ", 2^20), got ", value);
  }
}

inline Pool check_pool(const char* op, int64_t images, int64_t inner, const std::vector<int64_t>& input,
                       const std::vector<int64_t>& output, const PoolSizes& p) {
  check_pool_list(op, "kernel", p.kernel, 1);
  check_pool_list(op, "stride", p.stride, 1);
  check_pool_list(op, "padding", p.padding, 0);
  check_pool_list(op, "dilation", p.dilation, 1);
  auto axis = [&](size_t i) {
    STD_TORCH_CHECK(input[i] >= 0 && output[i] >= 0, op, ": sizes must not be negative, got ", input[i], " and ",
                    output[i]);
    return PoolAxis{input[i], output[i], p.kernel[i], p.stride[i], p.padding[i], p.dilation[i]};
  };
  return {images, inner, axis(0), axis(1)};
}

struct NonsmoothMaxPool {
  Pool s;
  Tensor values, winners;
};

inline NonsmoothMaxPool prepare_nonsmooth_max_pool2d(const Tensor& x, const PoolSizes& p,
                                                     const std::vector<int64_t>& output_size) {
  const char* op = "nonsmooth_max_pool2d";
  STD_TORCH_CHECK(has_sizes(x, {-1, -1, -1, -1}), op, ": x must have shape [images, height, width, inner], got ",
                  format_shape(x));
  check_same(op, "x", x, x);
  STD_TORCH_CHECK(output_size.size() == 2, op, ": output_size must have 2 numbers, got ", output_size.size());
  const Pool s = check_pool(op, x.size(0), x.size(3), {x.size(1), x.size(2)}, output_size, p);
  return {s, empty_like_sizes({s.images, s.y.output, s.x.output, s.inner}, x),
          empty_of_dtype({s.words(), s.images, s.y.output, s.x.output, s.inner}, ScalarType::Int, x)};
}

struct NonsmoothMaxPoolBackward {
  Pool s;
  Tensor grad_x;
};

inline NonsmoothMaxPoolBackward prepare_nonsmooth_max_pool2d_backward(const Tensor& grad, const Tensor& winners,
                                                                      const std::vector<int64_t>& input_size,
                                                                      const PoolSizes& p) {
  const char* op = "nonsmooth_max_pool2d_backward";
  STD_TORCH_CHECK(has_sizes(grad, {-1, -1, -1, -1}), op, ": grad must have shape [images, rows, columns, inner], got ",
                  format_shape(grad));
  check_same(op, "grad", grad, grad);
  STD_TORCH_CHECK(input_size.size() == 2, op, ": input_size must have 2 numbers, got ", input_size.size());
  const Pool s = check_pool(op, grad.size(0), grad.size(3), input_size, {grad.size(1), grad.size(2)}, p);
  check_record(op, "winners", winners, ScalarType::Int, {s.words(), s.images, s.y.output, s.x.output, s.inner}, grad);
  return {s, empty_like_sizes({s.images, s.y.input, s.x.input, s.inner}, grad)};
}

}  // namespace zonocuda
