#include "../common/nonsmooth_arguments.h"
#include "clones.h"
#include "halves.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

#define ZONOCUDA_LINES(T)                                                                                           \
  ZONOCUDA_LOOP_CLONES void kinked_lines(const T* x, Wide<T> left, int64_t count, T* y) {                           \
    for (int64_t i = 0; i < count; ++i) {                                                                           \
      y[i] = narrow<T>(kinked_line(widen(x[i]), left));                                                             \
    }                                                                                                               \
  }                                                                                                                 \
  ZONOCUDA_LOOP_CLONES void kinked_line_grads(const T* x, const T* g, Wide<T> left, Wide<T> at_zero, int64_t count, \
                                              T* out) {                                                             \
    for (int64_t i = 0; i < count; ++i) {                                                                           \
      out[i] = narrow<T>(kinked_line_grad(widen(x[i]), widen(g[i]), left, at_zero));                                \
    }                                                                                                               \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_LINES)
#undef ZONOCUDA_LINES

// Where every weight is 0 or 1 there is nothing to multiply, and 16-bit numbers need not become floats: their bits say
// which are negative (and not NaN) and which are zero.

/// The bits of g, or of x itself, where the weight is 1, and else 0. `infinity`: the bits of the dtype's infinity.
ZONOCUDA_LOOP_CLONES void select_bits(const uint16_t* x, const uint16_t* g, bool keep_left, bool keep_zero,
                                      uint16_t infinity, int64_t count, uint16_t* out) {
  const uint16_t left = keep_left ? 0xffff : 0, zero = keep_zero ? 0xffff : 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t magnitude = x[i] & 0x7fff;
    const bool negative = x[i] > 0x8000 && magnitude <= infinity;
    const uint16_t other = negative ? left : uint16_t(0xffff);
    out[i] = g[i] & (magnitude == 0 ? zero : other);
  }
}

bool is_zero_or_one(double weight) { return weight == 0 || weight == 1; }

template <class T>
constexpr uint16_t kInfinityBits = std::is_same_v<T, torch::headeronly::Half> ? 0x7c00 : 0x7f80;

}  // namespace

Tensor nonsmooth_relu(const Tensor& x, double left, double /*at_zero*/) {
  const char* op = "nonsmooth_relu";
  check_same(op, "x", x, x);
  Tensor y = empty_like_tensor(x);
  dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.const_data_ptr<T>();
    T* out = y.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (sizeof(T) == 2) {
        if (is_zero_or_one(left)) {
          const auto* bits = reinterpret_cast<const uint16_t*>(in + begin);
          return select_bits(bits, bits, left == 1, true, kInfinityBits<T>, end - begin,
                             reinterpret_cast<uint16_t*>(out + begin));
        }
      }
      kinked_lines(in + begin, Wide<T>(left), end - begin, out + begin);
    });
  });
  return y;
}

Tensor nonsmooth_relu_backward(const Tensor& grad, const Tensor& x, double left, double at_zero) {
  const char* op = "nonsmooth_relu_backward";
  check_same(op, "x", x, x);
  check_same(op, "grad", grad, x);
  Tensor grad_x = empty_like_tensor(x);
  dispatch_dtype_or_half(op, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.const_data_ptr<T>();
    const T* g = grad.const_data_ptr<T>();
    T* out = grad_x.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (sizeof(T) == 2) {
        if (is_zero_or_one(left) && is_zero_or_one(at_zero)) {
          return select_bits(reinterpret_cast<const uint16_t*>(in + begin),
                             reinterpret_cast<const uint16_t*>(g + begin), left == 1, at_zero == 1, kInfinityBits<T>,
                             end - begin, reinterpret_cast<uint16_t*>(out + begin));
        }
      }
      kinked_line_grads(in + begin, g + begin, Wide<T>(left), Wide<T>(at_zero), end - begin, out + begin);
    });
  });
  return grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("nonsmooth_relu", TORCH_BOX(&nonsmooth_relu));
  m.impl("_nonsmooth_relu_backward", TORCH_BOX(&nonsmooth_relu_backward));
}

}  // namespace zonocuda::cpu
