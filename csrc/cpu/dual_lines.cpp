#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/dual_lines_arguments.h"
#include "../math/index.h"
#include "dual_lines_rows.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kLinesBlock = 16;  // rows that take a piece of the lines one after the other

/// One part of the lines, [batch, 1 or rows, features]; null: it has the numbers of another part.
template <class T>
struct Part {
  const T* data;
  int64_t batch_stride, row_stride;

  Part(const T* data, int64_t count, int64_t features)
      : data(count > 0 ? data : nullptr), batch_stride(count * features), row_stride(count > 1 ? features : 0) {}

  const T* at(int64_t b, int64_t r, int64_t n) const { return data + b * batch_stride + r * row_stride + n; }
};

template <class T>
struct Parts {
  Part<T> lower, below, above, upper;

  Parts(const DualLinesInputs& in, const DualLinesSizes& s)
      : lower(in.lower.const_data_ptr<T>(), s.lower, s.features),
        below(in.below.const_data_ptr<T>(), s.below, s.features),
        above(in.above.const_data_ptr<T>(), s.above, s.features),
        upper(in.upper.has_value() ? in.upper->const_data_ptr<T>() : nullptr, s.upper, s.features) {}

  LinesAt<T> at(int64_t b, int64_t r, int64_t n) const {
    const T* slope = lower.at(b, r, n);
    return {slope, upper.data ? upper.at(b, r, n) : slope, below.at(b, r, n), above.at(b, r, n)};
  }
};

/// Where the gradient of a part goes: to a row of its own, or to a sum over the rows.
template <class T>
struct PartGrad {
  T* data;  // null: nobody wants it
  int64_t count, features;

  PartGrad(Tensor& t, int64_t count, int64_t features)
      : data(t.size(1) > 0 ? t.mutable_data_ptr<T>() : nullptr), count(count), features(features) {}

  void begin(int64_t b, int64_t n, int64_t width) const {
    if (data && count == 1) {
      std::fill_n(data + b * features + n, width, T(0));
    }
  }
  void take(const T* values, int64_t b, int64_t r, int64_t n, int64_t width) const {
    if (data && count == 1) {
      add_to(values, width, data + b * features + n);
    } else if (data) {
      std::copy_n(values, width, data + (b * count + r) * features + n);
    }
  }
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor> dual_lines(const Tensor& rows, const Tensor& lower, const Tensor& below,
                                              const Tensor& above, const std::optional<Tensor>& upper) {
  const DualLinesInputs in{rows, lower, below, above, upper};
  DualLines out = prepare_dual_lines(in);
  dispatch_dtype("dual_lines", rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualLinesSizes& s = out.s;
    const T* v = rows.const_data_ptr<T>();
    T* image = out.rows.mutable_data_ptr<T>();
    T* low = out.low.mutable_data_ptr<T>();
    T* high = out.high.mutable_data_ptr<T>();
    const int64_t blocks = ceil_div(s.rows, kLinesBlock);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, kLinesBlock * s.features));
    torch::stable::parallel_for(0, s.batch * blocks, grain, [&](int64_t begin, int64_t end) {
      const Parts<T> parts(in, s);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t b = block / blocks, first = block % blocks * kLinesBlock;
        const int64_t last = std::min(first + kLinesBlock, s.rows);
        T lows[kLinesBlock][kLineLanes] = {}, highs[kLinesBlock][kLineLanes] = {};
        for (int64_t n = 0; n < s.features; n += kLineStrip) {
          const int64_t width = std::min(kLineStrip, s.features - n);
          for (int64_t r = first; r < last; ++r) {
            const int64_t entry = generator_offset(b, r, n, s.rows, s.features);
            lines_steps(v + entry, parts.at(b, r, n), width, image + entry, lows[r - first], highs[r - first]);
          }
        }
        for (int64_t r = first; r < last; ++r) {
          T sums[2] = {};
          for (int i = 0; i < kLineLanes; ++i) {
            sums[0] += lows[r - first][i];
            sums[1] += highs[r - first][i];
          }
          low[b * s.rows + r] = sums[0];
          high[b * s.rows + r] = sums[1];
        }
      }
    });
  });
  return {out.rows, out.low, out.high};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_lines_backward(
    const Tensor& grad_rows, const Tensor& grad_low, const Tensor& grad_high, const Tensor& rows, const Tensor& lower,
    const Tensor& below, const Tensor& above, const std::optional<Tensor>& upper, bool needs_lines) {
  const char* op = "dual_lines_backward";
  const DualLinesInputs in{rows, lower, below, above, upper};
  DualLinesBackward out = prepare_dual_lines_backward(grad_rows, grad_low, grad_high, in, needs_lines);
  dispatch_dtype(op, rows.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const DualLinesSizes& s = out.s;
    const T* v = rows.const_data_ptr<T>();
    const T* g = grad_rows.const_data_ptr<T>();
    const T* gl = grad_low.const_data_ptr<T>();
    const T* gh = grad_high.const_data_ptr<T>();
    T* grad_v = out.rows.mutable_data_ptr<T>();
    const PartGrad<T> to_lower(out.lower, s.lower, s.features), to_below(out.below, s.below, s.features),
        to_above(out.above, s.above, s.features), to_upper(out.upper, s.upper, s.features);
    const int64_t strips = ceil_div(s.features, kLineStrip);
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.rows * kLineStrip));
    torch::stable::parallel_for(0, s.batch * strips, grain, [&](int64_t begin, int64_t end) {
      const Parts<T> parts(in, s);
      T on_lower[kLineStrip], on_upper[kLineStrip], on_below[kLineStrip], on_above[kLineStrip];
      for (int64_t t = begin; t < end; ++t) {
        const int64_t b = t / strips, n = t % strips * kLineStrip;
        const int64_t width = std::min(kLineStrip, s.features - n);
        for (const PartGrad<T>* to : {&to_lower, &to_below, &to_above, &to_upper}) {
          to->begin(b, n, width);
        }
        for (int64_t r = 0; r < s.rows; ++r) {
          const int64_t entry = generator_offset(b, r, n, s.rows, s.features), row = b * s.rows + r;
          lines_steps_backward(v + entry, parts.at(b, r, n), g + entry, gl[row], gh[row], s.one(), width,
                               grad_v + entry, on_lower, on_upper, on_below, on_above);
          to_lower.take(on_lower, b, r, n, width);
          to_upper.take(on_upper, b, r, n, width);
          to_below.take(on_below, b, r, n, width);
          to_above.take(on_above, b, r, n, width);
        }
      }
    });
  });
  return {out.rows, out.lower, out.below, out.above, out.upper};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("dual_lines", TORCH_BOX(&dual_lines));
  m.impl("_dual_lines_backward", TORCH_BOX(&dual_lines_backward));
}

}  // namespace zonocuda::cpu
