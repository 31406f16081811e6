#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/arguments.h"
#include "neurons.h"
#include "rows.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

template <class T>
const T* data_or_null(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr<T>() : nullptr;
}

// Two passes over a tile: |G| into the radius, then the scaled rows. The second one reads from the cache. The outputs
// may be the inputs.
template <class T>
void relu_kernel(const Relu& out, const T* center, const T* generators, const T* slope, const T* given_lower,
                 const T* given_upper) {
  const Sizes& s = out.s;
  T* const out_center = out.center.mutable_data_ptr<T>();
  T* const out_generators = out.generators.mutable_data_ptr<T>();
  T* const offset = out.offset.mutable_data_ptr<T>();
  T* const lower = out.lower.mutable_data_ptr<T>();
  T* const upper = out.upper.mutable_data_ptr<T>();
  const Writes writes = generators == out_generators ? Writes::cached : writes_of(s, sizeof(T));
  for_each_tile(s, sizeof(T), [&](int64_t b, int64_t n, int64_t width) {
    const int64_t block = generator_offset(b, 0, n, s.symbols, s.features);
    T radius[kMaxTile] = {};
    if (!out.external) {
      add_abs(generators + block, s.symbols, s.features, width, radius);
    }
    T multiplier[kMaxTile];
    const int64_t at = b * s.features + n;
    if (out.external) {
      std::copy_n(given_lower + at, width, lower + at);
      std::copy_n(given_upper + at, width, upper + at);
    } else {
      bounds(center + at, radius, width, lower + at, upper + at);
    }
    relax(lower + at, upper + at, slope ? slope + at : nullptr, width, multiplier, offset + at);
    scale_shift(center + at, multiplier, offset + at, width, out_center + at);
    scale_rows(generators + block, multiplier, s.symbols, s.features, width, out_generators + block, writes);
  });
}

template <class T>
void relu_backward_kernel(const ReluBackward& out, const T* grad_center, const T* grad_generators, const T* grad_offset,
                          const T* center, const T* generators, const T* lower, const T* upper, const T* slope,
                          KinkChoice<T> choice, bool external, bool needs_generators, bool needs_slope) {
  const Sizes& s = out.s;
  const bool needs_products = needs_slope || !slope || choice.kink == Kink::min_norm;
  T* const out_center = out.grad_center.mutable_data_ptr<T>();
  T* const out_generators = out.grad_generators.mutable_data_ptr<T>();
  T* const out_slope = out.grad_slope.mutable_data_ptr<T>();
  T* const out_lower = out.grad_lower.mutable_data_ptr<T>();
  T* const out_upper = out.grad_upper.mutable_data_ptr<T>();
  const Writes writes = writes_of(s, sizeof(T));
  for_each_tile(s, 2 * sizeof(T), [&](int64_t b, int64_t n, int64_t width) {
    const int64_t block = generator_offset(b, 0, n, s.symbols, s.features);
    T products[kMaxTile] = {};
    if (needs_products) {
      add_products(grad_generators + block, generators + block, s.symbols, s.features, width, products);
    }
    const int64_t at = b * s.features + n;
    const T* const slopes = slope ? slope + at : nullptr;
    T m[kMaxTile];
    add_product_and_sum(grad_center + at, center + at, grad_offset + at, width, products, m);
    relax_backward(lower + at, upper + at, slopes, choice, products, m, width, out_slope + at, out_lower + at,
                   out_upper + at);
    T multiplier[kMaxTile];
    T unused[kMaxTile];
    relax(lower + at, upper + at, slopes, width, multiplier, unused);
    T total[kMaxTile] = {};  // of the gradients of the bounds, where these are not given
    T shift[kMaxTile] = {};
    if (!external) {
      sum_and_difference(out_lower + at, out_upper + at, width, total, shift);
    }
    scale_shift(grad_center + at, multiplier, total, width, out_center + at);
    if (needs_generators) {
      scale_and_shift_signs(grad_generators + block, generators + block, multiplier, shift, s.symbols, s.features,
                            width, out_generators + block, writes);
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relu(const Tensor& center, const Tensor& generators,
                                                        const std::optional<Tensor>& slope,
                                                        const std::optional<Tensor>& lower,
                                                        const std::optional<Tensor>& upper, int64_t /*kink*/,
                                                        double /*kink_tolerance*/) {
  Relu out = prepare_relu(center, generators, slope, lower, upper);
  if (!out.s.empty()) {
    dispatch_dtype("relu", center.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      relu_kernel<T>(out, center.const_data_ptr<T>(), generators.const_data_ptr<T>(), data_or_null<T>(slope),
                     data_or_null<T>(lower), data_or_null<T>(upper));
    });
  }
  return {out.center, out.generators, out.offset, out.lower, out.upper};
}

std::tuple<Tensor, Tensor, Tensor> relu_(const Tensor& center, const Tensor& generators,
                                         const std::optional<Tensor>& slope, const std::optional<Tensor>& lower,
                                         const std::optional<Tensor>& upper) {
  Relu out = prepare_relu_in_place(center, generators, slope, lower, upper);
  if (!out.s.empty()) {
    dispatch_dtype("relu_", center.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      relu_kernel<T>(out, out.center.mutable_data_ptr<T>(), out.generators.mutable_data_ptr<T>(),
                     data_or_null<T>(slope), data_or_null<T>(lower), data_or_null<T>(upper));
    });
  }
  return {out.offset, out.lower, out.upper};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relu_backward(
    const Tensor& grad_center, const Tensor& grad_generators, const Tensor& grad_offset, const Tensor& center,
    const Tensor& generators, const Tensor& lower, const Tensor& upper, const std::optional<Tensor>& slope,
    int64_t kink, double tolerance, bool external, bool needs_generators, bool needs_slope) {
  ReluBackward out = prepare_relu_backward(grad_center, grad_generators, grad_offset, center, generators, lower, upper,
                                           slope, needs_generators);
  if (!out.s.empty()) {
    dispatch_dtype("relu_backward", generators.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      relu_backward_kernel<T>(out, grad_center.const_data_ptr<T>(), grad_generators.const_data_ptr<T>(),
                              grad_offset.const_data_ptr<T>(), center.const_data_ptr<T>(),
                              generators.const_data_ptr<T>(), lower.const_data_ptr<T>(), upper.const_data_ptr<T>(),
                              data_or_null<T>(slope), KinkChoice<T>{static_cast<Kink>(kink), static_cast<T>(tolerance)},
                              external, needs_generators, needs_slope);
    });
  }
  return {out.grad_center, out.grad_generators, out.grad_slope, out.grad_lower, out.grad_upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("relu", TORCH_BOX(&relu));
  m.impl("_relu_backward", TORCH_BOX(&relu_backward));
  m.impl("relu_", TORCH_BOX(&relu_));
}

}  // namespace zonocuda::cpu
