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

namespace {

/// The neurons of a piece that are neither dead nor active: the others hand nothing to slopes and bounds.
struct Crossing {
  int count = 0;
  int at[kDualStrip];

  template <class T>
  void find(const T* l, const T* u, int64_t width) {
    count = 0;
    for (int64_t j = 0; j < width; ++j) {
      at[count] = static_cast<int>(j);
      count += !is_dead(l[j], u[j]) && !is_active(l[j], u[j]);
    }
  }
};

/// What the backward pass of one side needs, and its results. A piece of columns belongs to one thread.
template <class T>
struct SideBackward {
  Side<T> side;
  Kink kink;
  T tolerance;
  T* grad;  // of the slopes; null: tied
  T multiplier[kDualStrip], offset[kDualStrip];

  void begin(int64_t width) {
    std::fill_n(multiplier, width, T(0));
    std::fill_n(offset, width, T(0));
  }

  T* grad_at(int64_t b, int64_t r, int64_t n) const {
    return grad ? grad + b * side.batch_stride + r * side.row_stride + n : nullptr;
  }

  /// The slopes, l and u of one row or, in the end, of all rows that share their slopes.
  void finish(const Crossing& crossing, const T* l, const T* u, int64_t b, int64_t r, int64_t n, int64_t width,
              T* lower, T* upper) const {
    const T* slope = side.at(b, r, n);
    T* out = grad_at(b, r, n);
    if (out) {
      std::fill_n(out, width, T(0));
    }
    for (int i = 0; i < crossing.count; ++i) {
      const int j = crossing.at[i];
      const RelaxationGrad<T> g =
          relax_relu_backward(l[j], u[j], slope ? slope[j] : T(0), !slope, kink, tolerance, multiplier[j], offset[j]);
      lower[j] += g.lower;
      upper[j] += g.upper;
      if (out) {
        out[j] = g.slope;
      }
    }
  }
};

}  // namespace

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
    const int64_t strip = strip_width(s);
    const int64_t strips = ceil_div(s.features, strip);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.rows * strip));
    torch::stable::parallel_for(0, s.batch * strips, grain, [&](int64_t begin, int64_t end) {
      Sides<T> sides(negative, nonnegative, s);
      SideBackward<T> below{sides.negative,
                            static_cast<Kink>(kink),
                            static_cast<T>(tolerance),
                            s.negative > 0 ? out.negative.mutable_data_ptr<T>() : nullptr,
                            {},
                            {}};
      SideBackward<T> above{sides.nonnegative,
                            static_cast<Kink>(kink),
                            static_cast<T>(tolerance),
                            s.nonnegative > 0 ? out.nonnegative.mutable_data_ptr<T>() : nullptr,
                            {},
                            {}};
      T multiplier[kDualStrip], offset[kDualStrip];
      Crossing crossing;
      for (int64_t t = begin; t < end; ++t) {
        const int64_t b = t / strips;
        const int64_t n = t % strips * strip;
        const int64_t width = std::min(strip, s.features - n);
        const int64_t at = b * s.features + n;
        if (needs_slopes) {
          std::fill_n(grad_l + at, width, T(0));
          std::fill_n(grad_u + at, width, T(0));
          crossing.find(l + at, u + at, width);
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
          auto collect = [&](SideBackward<T>& side, bool is_negative) {
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
              side.finish(crossing, l + at, u + at, b, r, n, width, grad_l + at, grad_u + at);
            }
          };
          collect(below, true);
          if (!sides.one) {
            collect(above, false);
          }
        }
        if (needs_slopes) {
          if (!below.side.per_row()) {
            below.finish(crossing, l + at, u + at, b, 0, n, width, grad_l + at, grad_u + at);
          }
          if (!sides.one && !above.side.per_row()) {
            above.finish(crossing, l + at, u + at, b, 0, n, width, grad_l + at, grad_u + at);
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
