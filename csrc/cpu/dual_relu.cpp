#include "../math/dual_relu.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/dual_arguments.h"
#include "../math/index.h"
#include "dual_rows.h"
#include "dual_sides.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

/// The slopes and the tables of both sides; without slopes of its own the nonnegative side is the negative one.
template <class T>
struct Sides {
  Side<T> negative, nonnegative;
  bool one;
  DualTable<T> first, second;

  Sides(const std::optional<Tensor>& below, const std::optional<Tensor>& above, const DualSizes& s)
      : negative(below, s.negative, s), nonnegative(above, s.nonnegative, s), one(!above.has_value()) {}

  const DualTable<T>& other() const { return one ? first : second; }

  /// Before the first row of a piece, and before each row.
  void prepare(bool row, const T* l, const T* u, int64_t b, int64_t r, int64_t n, int64_t width) {
    if (negative.per_row() == row) {
      fill_table(l, u, negative.at(b, r, n), width, first);
    }
    if (!one && nonnegative.per_row() == row) {
      fill_table(l, u, nonnegative.at(b, r, n), width, second);
    }
  }
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor> dual_relu(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                             const std::optional<Tensor>& negative,
                                             const std::optional<Tensor>& nonnegative, int64_t /*kink*/,
                                             double /*tolerance*/) {
  DualRelu out = prepare_dual_relu(rows, lower, upper, negative, nonnegative);
  dispatch_dtype("dual_relu", rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualSizes& s = out.s;
    const T* v = rows.const_data_ptr<T>();
    const T* l = lower.const_data_ptr<T>();
    const T* u = upper.const_data_ptr<T>();
    T* image = out.rows.mutable_data_ptr<T>();
    T* low = out.low.mutable_data_ptr<T>();
    T* high = out.high.mutable_data_ptr<T>();
    const int64_t blocks = ceil_div(s.rows, kRowBlock);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, kRowBlock * s.features));
    torch::stable::parallel_for(0, s.batch * blocks, grain, [&](int64_t begin, int64_t end) {
      Sides<T> sides(negative, nonnegative, s);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t b = block / blocks;
        const int64_t first = block % blocks * kRowBlock;
        const int64_t last = std::min(first + kRowBlock, s.rows);
        T lows[kRowBlock][kDualLanes] = {};
        T highs[kRowBlock][kDualLanes] = {};
        for (int64_t n = 0; n < s.features; n += kDualStrip) {
          const int64_t width = std::min(kDualStrip, s.features - n);
          const int64_t at = b * s.features + n;
          sides.prepare(false, l + at, u + at, b, 0, n, width);
          for (int64_t r = first; r < last; ++r) {
            sides.prepare(true, l + at, u + at, b, r, n, width);
            const int64_t entry = generator_offset(b, r, n, s.rows, s.features);
            dual_steps(v + entry, sides.first, sides.other(), width, image + entry, lows[r - first], highs[r - first]);
          }
        }
        for (int64_t r = first; r < last; ++r) {
          low[b * s.rows + r] = sum_lanes(lows[r - first]);
          high[b * s.rows + r] = sum_lanes(highs[r - first]);
        }
      }
    });
  });
  return {out.rows, out.low, out.high};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_relu_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
    const Tensor& upper, const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative, int64_t kink,
    double tolerance, bool needs_slopes) {
  const char* op = "dual_relu_backward";
  DualReluBackward out = prepare_dual_relu_backward(grad_rows, grad_low, grad_high, rows, lower, upper, negative,
                                                    nonnegative, needs_slopes);
  dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualSizes& s = out.s;
    const T* g = grad_rows.const_data_ptr<T>();
    const T* gl = grad_low.const_data_ptr<T>();
    const T* gh = grad_high.const_data_ptr<T>();
    const T* v = rows.const_data_ptr<T>();
    const T* l = lower.const_data_ptr<T>();
    const T* u = upper.const_data_ptr<T>();
    T* grad_v = out.rows.mutable_data_ptr<T>();
    T* grad_l = out.lower.mutable_data_ptr<T>();
    T* grad_u = out.upper.mutable_data_ptr<T>();
    const KinkChoice<T> choice{static_cast<Kink>(kink), static_cast<T>(tolerance)};
    const int64_t strip = strip_width(s);
    const int64_t strips = ceil_div(s.features, strip);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.rows * strip));
    torch::stable::parallel_for(0, s.batch * strips, grain, [&](int64_t begin, int64_t end) {
      Sides<T> sides(negative, nonnegative, s);
      const auto grads = [&](const Side<T>& side, Tensor& slopes, int64_t count) {
        T* const out = count > 0 ? slopes.mutable_data_ptr<T>() : nullptr;
        return SideGrads<T>{side, l, u, s.features, choice, out, grad_l, grad_u};
      };
      SideGrads<T> below = grads(sides.negative, out.negative, s.negative);
      SideGrads<T> above = grads(sides.nonnegative, out.nonnegative, s.nonnegative);
      T multiplier[kDualStrip], offset[kDualStrip];
      for (int64_t t = begin; t < end; ++t) {
        const int64_t b = t / strips;
        const int64_t n = t % strips * strip;
        const int64_t width = std::min(strip, s.features - n);
        const int64_t at = b * s.features + n;
        if (needs_slopes) {
          std::fill_n(grad_l + at, width, T(0));
          std::fill_n(grad_u + at, width, T(0));
          below.begin(width);
          above.begin(width);
        }
        sides.prepare(false, l + at, u + at, b, 0, n, width);
        for (int64_t r = 0; r < s.rows; ++r) {
          sides.prepare(true, l + at, u + at, b, r, n, width);
          const int64_t entry = generator_offset(b, r, n, s.rows, s.features);
          dual_steps_backward(v + entry, sides.first, sides.other(), g + entry, gl[b * s.rows + r], gh[b * s.rows + r],
                              width, grad_v + entry, multiplier, offset);
          if (!needs_slopes) {
            continue;
          }
          auto collect = [&](SideGrads<T>& side, bool is_negative) {
            if (side.side.per_row()) {
              side.begin(width);
            }
            if (sides.one) {
              add_all(multiplier, width, side.multiplier);
              add_all(offset, width, side.offset);
            } else {
              add_side(multiplier, v + entry, is_negative, width, side.multiplier);
              add_side(offset, v + entry, is_negative, width, side.offset);
            }
            if (side.side.per_row()) {
              side.finish_row(side.multiplier, side.offset, b, r, n, width);
            }
          };
          collect(below, true);
          if (!sides.one) {
            collect(above, false);
          }
        }
        if (needs_slopes) {
          below.finish(b, n, width);
          if (!sides.one) {
            above.finish(b, n, width);
          }
        }
      }
    });
  });
  return {out.rows, out.lower, out.upper, out.negative, out.nonnegative};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("dual_relu", TORCH_BOX(&dual_relu));
  m.impl("_dual_relu_backward", TORCH_BOX(&dual_relu_backward));
}

}  // namespace zonocuda::cpu
