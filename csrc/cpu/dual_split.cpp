#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/dual_split_arguments.h"
#include "../math/index.h"
#include "dual_sides.h"
#include "dual_split_rows.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

/// The arguments, and pieces of them. Without slopes of its own the nonnegative side is the negative one.
template <class T>
struct SplitRows {
  const DualSizes& s;
  const T *v, *lower, *upper, *multipliers;  // null: no multipliers
  const int8_t* splits;
  Side<T> negative, nonnegative;
  bool one;
  T tied[kDualStrip], zeros[kDualStrip] = {};

  SplitRows(const DualSizes& sizes, const DualSplitInputs& in)
      : s(sizes),
        v(in.rows.const_data_ptr<T>()),
        lower(in.lower.const_data_ptr<T>()),
        upper(in.upper.const_data_ptr<T>()),
        multipliers(in.multipliers.has_value() ? in.multipliers->const_data_ptr<T>() : nullptr),
        splits(in.splits.const_data_ptr<int8_t>()),
        negative(in.negative, sizes.negative, sizes),
        nonnegative(in.nonnegative, sizes.nonnegative, sizes),
        one(!in.nonnegative.has_value()) {}

  bool has_tied() const { return !negative.data || (!one && !nonnegative.data); }

  /// Before the pieces of neurons n ... n + width - 1.
  void begin(int64_t b, int64_t n, int64_t width) {
    if (has_tied()) {
      tied_slopes(lower + b * s.features + n, upper + b * s.features + n, width, tied);
    }
  }

  SplitPiece<T> piece(int64_t b, int64_t r, int64_t n, int64_t width) const {
    const int64_t entry = generator_offset(b, r, n, s.rows, s.features), neuron = b * s.features + n;
    const auto slopes = [&](const Side<T>& side) { return side.data ? side.at(b, r, n) : tied; };
    return {v + entry,      splits + entry,   multipliers ? multipliers + entry : zeros, lower + neuron,
            upper + neuron, slopes(negative), slopes(one ? negative : nonnegative),      width};
  }
};

}  // namespace

std::tuple<Tensor, Tensor> dual_split(const Tensor& rows, const Tensor& lower, const Tensor& upper,
                                      const Tensor& splits, const std::optional<Tensor>& multipliers,
                                      const std::optional<Tensor>& negative, const std::optional<Tensor>& nonnegative,
                                      int64_t /*kink*/, double /*tolerance*/) {
  const DualSplitInputs in{rows, lower, upper, splits, multipliers, negative, nonnegative};
  DualSplit out = prepare_dual_split(in);
  dispatch_dtype("dual_split", rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualSizes& s = out.s;
    T* image = out.rows.mutable_data_ptr<T>();
    T* low = out.low.mutable_data_ptr<T>();
    const int64_t blocks = ceil_div(s.rows, kRowBlock);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, kRowBlock * s.features));
    torch::stable::parallel_for(0, s.batch * blocks, grain, [&](int64_t begin, int64_t end) {
      SplitRows<T> a(s, in);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t b = block / blocks;
        const int64_t first = block % blocks * kRowBlock;
        const int64_t last = std::min(first + kRowBlock, s.rows);
        T lows[kRowBlock][kDualLanes] = {};
        for (int64_t n = 0; n < s.features; n += kDualStrip) {
          const int64_t width = std::min(kDualStrip, s.features - n);
          a.begin(b, n, width);
          for (int64_t r = first; r < last; ++r) {
            split_steps(a.piece(b, r, n, width), image + generator_offset(b, r, n, s.rows, s.features),
                        lows[r - first]);
          }
        }
        for (int64_t r = first; r < last; ++r) {
          low[b * s.rows + r] = sum_lanes(lows[r - first]);
        }
      }
    });
  });
  return {out.rows, out.low};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> dual_split_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& rows, const Tensor& lower, const Tensor& upper,
    const Tensor& splits, const std::optional<Tensor>& multipliers, const std::optional<Tensor>& negative,
    const std::optional<Tensor>& nonnegative, int64_t kink, double tolerance, bool needs_bounds, bool needs_slopes) {
  const DualSplitInputs in{rows, lower, upper, splits, multipliers, negative, nonnegative};
  DualSplitBackward out = prepare_dual_split_backward(grad_rows, grad_low, in, needs_bounds, needs_slopes);
  dispatch_dtype("dual_split_backward", rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualSizes& s = out.s;
    const KinkChoice<T> choice{static_cast<Kink>(kink), static_cast<T>(tolerance)};
    const T* g = grad_rows.const_data_ptr<T>();
    const T* gl = grad_low.const_data_ptr<T>();
    const auto wanted = [&](Tensor& t, bool is) { return is ? t.mutable_data_ptr<T>() : nullptr; };
    T* grad_v = out.rows.mutable_data_ptr<T>();
    T* grad_beta = wanted(out.multipliers, multipliers.has_value());
    T* grad_l = wanted(out.lower, needs_bounds);
    T* grad_u = wanted(out.upper, needs_bounds);
    const int64_t strip = strip_width(s);
    const int64_t strips = ceil_div(s.features, strip);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.rows * strip));
    torch::stable::parallel_for(0, s.batch * strips, grain, [&](int64_t begin, int64_t end) {
      SplitRows<T> a(s, in);
      const auto grads = [&](const Side<T>& side, Tensor& slopes, bool has_slopes) {
        T* const out = wanted(slopes, needs_slopes && has_slopes);
        return SideGrads<T>{side, a.lower, a.upper, s.features, choice, out, grad_l, grad_u};
      };
      SideGrads<T> below = grads(a.negative, out.negative, s.negative > 0);
      SideGrads<T> above = grads(a.nonnegative, out.nonnegative, s.nonnegative > 0);
      const bool has_below = needs_bounds || below.slopes;
      const bool has_above = !a.one && (needs_bounds || above.slopes);
      const bool finished = has_above && a.nonnegative.per_row() && above.slopes;
      const auto collect = [&](SideGrads<T>& side, const T* lam, const T* mu, int64_t b, int64_t r, int64_t n,
                               int64_t width) {
        if (side.side.per_row()) {
          side.finish_row(lam, mu, b, r, n, width);
        } else {
          add_all(lam, width, side.multiplier);
          add_all(mu, width, side.offset);
        }
      };
      T first[kDualStrip], second[kDualStrip], offset[kDualStrip];
      for (int64_t t = begin; t < end; ++t) {
        const int64_t b = t / strips;
        const int64_t n = t % strips * strip;
        const int64_t width = std::min(strip, s.features - n);
        a.begin(b, n, width);
        below.begin(width);
        above.begin(width);
        if (needs_bounds) {
          std::fill_n(grad_l + b * s.features + n, width, T(0));
          std::fill_n(grad_u + b * s.features + n, width, T(0));
        }
        for (int64_t r = 0; r < s.rows; ++r) {
          const int64_t entry = generator_offset(b, r, n, s.rows, s.features);
          split_steps_backward(a.piece(b, r, n, width), g + entry, gl[b * s.rows + r],
                               {grad_v + entry, grad_beta ? grad_beta + entry : nullptr, first,
                                finished ? above.slopes + entry : second, offset, finished});
          if (has_below) {
            if (a.one) {
              add_all(second, width, first);  // one of the two is zero
            }
            collect(below, first, offset, b, r, n, width);
          }
          if (has_above && !finished) {
            collect(above, second, a.zeros, b, r, n, width);
          }
        }
        if (has_below) {
          below.finish(b, n, width);
        }
        if (has_above) {
          above.finish(b, n, width);
        }
      }
    });
  });
  return {out.rows, out.lower, out.upper, out.multipliers, out.negative, out.nonnegative};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("dual_split", TORCH_BOX(&dual_split));
  m.impl("_dual_split_backward", TORCH_BOX(&dual_split_backward));
}

}  // namespace zonocuda::cpu
