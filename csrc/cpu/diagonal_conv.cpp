#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "../common/window_arguments.h"
#include "boxes.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

void check_range(const char* op, const DiagonalConv& s, const int64_t* index) {
  for (int64_t k = 0; k < s.symbols; ++k) {
    STD_TORCH_CHECK(index[k] >= 0 && index[k] < s.features(), op, ": index[", k, "] = ", index[k],
                    " is not one of the ", s.features(), " features");
  }
}

// Values [outputs, rows, columns] that the symbols of one channel with the same phases share.
template <class T>
struct Page {
  int64_t channel = -1, phase_y = 0, phase_x = 0;
  std::vector<T> values;

  bool is(const ConvPlace& p) const { return channel == p.channel && phase_y == p.phase_y && phase_x == p.phase_x; }
};

// Symbols usually come in the order of their neurons: phases alternate, and the channel rarely changes. So the last
// page of each pair of phases is kept (of those that agree modulo 8: one).
template <class T>
class Pages {
 public:
  Page<T>& at(const ConvPlace& p) { return pages_[p.phase_y % kPhases * kPhases + p.phase_x % kPhases]; }

  template <class F>
  void each(F f) {
    std::for_each(pages_.begin(), pages_.end(), f);
  }

 private:
  static constexpr int64_t kPhases = 8;
  std::array<Page<T>, kPhases * kPhases> pages_;
};

// f(element of the window, kernel row, kernel column) for each element of a window that sees one of the kernel.
template <class F>
void each_tap(const DiagonalConv& s, int64_t phase_y, int64_t phase_x, F f) {
  for (int64_t t = 0; t < s.y.window(); ++t) {
    const int64_t v_y = s.y.tap(phase_y, t);
    for (int64_t u = 0; v_y >= 0 && u < s.x.window(); ++u) {
      const int64_t v_x = s.x.tap(phase_x, u);
      if (v_x >= 0) {
        f(t * s.x.window() + u, v_y, v_x);
      }
    }
  }
}

// The kernel elements that a symbol's patch shows, [group_outputs, rows, columns], zero where there is none.
template <class T>
const T* kernel_page(const DiagonalConv& s, const T* weight, const ConvPlace& p, Pages<T>& pages) {
  Page<T>& page = pages.at(p);
  if (!page.is(p)) {
    page = {p.channel, p.phase_y, p.phase_x, std::move(page.values)};
    page.values.assign(s.group_outputs() * s.window(), T(0));
    const int64_t group = p.group, input = p.input;
    for (int64_t o = 0; o < s.group_outputs(); ++o) {
      each_tap(s, p.phase_y, p.phase_x, [&](int64_t at, int64_t v_y, int64_t v_x) {
        page.values[o * s.window() + at] = weight[s.weight_offset(group * s.group_outputs() + o, input, v_y, v_x)];
      });
    }
  }
  return page.values.data();
}

// The part of a window that lies on the output map.
struct Inside {
  Span y, x;
  bool whole;

  Inside(const DiagonalConv& s, const ConvPlace& p)
      : y(clip(p.corner_y, s.y.window(), 0, s.y.out)),
        x(clip(p.corner_x, s.x.window(), 0, s.x.out)),
        whole(y.size() == s.y.window() && x.size() == s.x.window()) {}

  bool has(const DiagonalConv& s, int64_t element) const {
    return between(y.first, element / s.x.window(), y.last) && between(x.first, element % s.x.window(), x.last);
  }
};

// f(box, first element) for boxes that cover, of `outputs` planes of a window, what lies on the map: a few long rows
// where that is all of it.
template <class F>
void each_box(const DiagonalConv& s, const Inside& in, int64_t outputs, F f) {
  const int64_t columns = s.x.window();
  if (in.whole) {
    constexpr int64_t kRow = 16;
    const int64_t count = outputs * s.window(), rows = count / kRow;
    f(Box{1, rows, kRow, 0, kRow, 0, kRow}, int64_t(0));
    f(Box{1, 1, count - rows * kRow, 0, 0, 0, 0}, rows * kRow);
  } else if (in.y.size() > 0 && in.x.size() > 0) {
    f(Box{outputs, in.y.size(), in.x.size(), s.window(), columns, s.window(), columns},
      in.y.first * columns + in.x.first);
  }
}

// result[b, k] = coefficients[b, k] times the kernel as the symbol's window shows it.
template <class T>
void forward_kernel(const DiagonalConv& s, const T* coefficients, const int64_t* index, const T* weight, T* result) {
  const int64_t size = s.group_outputs() * s.window();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.patch()));
  torch::stable::parallel_for(0, s.batch * s.symbols, grain, [&](int64_t begin, int64_t end) {
    Pages<T> pages;
    for (int64_t i = begin; i < end; ++i) {
      const ConvPlace p = conv_place(s, index[i % s.symbols]);
      const T* kernel = kernel_page(s, weight, p, pages);
      T* patch = result + i * s.patch();
      T* own = patch + p.group * size;
      const Inside in(s, p);
      if (in.whole && std::isfinite(coefficients[i])) {
        std::fill(patch, own, T(0));
        std::fill(own + size, patch + s.patch(), T(0));
      } else {
        std::fill_n(patch, s.patch(), T(0));
      }
      if (std::isfinite(coefficients[i])) {
        each_box(s, in, s.group_outputs(),
                 [&](const Box& box, int64_t first) { scale(box, coefficients[i], kernel + first, own + first); });
      } else {  // times the zeros that stand for no kernel element would be NaN
        each_tap(s, p.phase_y, p.phase_x, [&](int64_t at, int64_t, int64_t) {
          const bool inside = in.has(s, at);
          for (; inside && at < size; at += s.window()) {
            own[at] = coefficients[i] * kernel[at];
          }
        });
      }
    }
  });
}

// grad_coefficients[b, k] = the sum of grad times the kernel over the window's elements on the map.
template <class T>
void grad_coefficients_kernel(const DiagonalConv& s, const T* grad, const int64_t* index, const T* weight,
                              T* grad_coefficients) {
  const int64_t size = s.group_outputs() * s.window();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size));
  torch::stable::parallel_for(0, s.batch * s.symbols, grain, [&](int64_t begin, int64_t end) {
    Pages<T> pages;
    for (int64_t i = begin; i < end; ++i) {
      const ConvPlace p = conv_place(s, index[i % s.symbols]);
      const T* kernel = kernel_page(s, weight, p, pages);
      const T* g = grad + i * s.patch() + p.group * size;
      const Inside in(s, p);
      T sum = T(0);
      each_box(s, in, s.group_outputs(),
               [&](const Box& box, int64_t first) { sum += dot(box, g + first, kernel + first); });
      if (!std::isfinite(sum)) {  // once more, without the elements that see no kernel element
        sum = T(0);
        each_tap(s, p.phase_y, p.phase_x, [&](int64_t at, int64_t, int64_t) {
          const bool inside = in.has(s, at);
          for (; inside && at < size; at += s.window()) {
            sum += g[at] * kernel[at];
          }
        });
      }
      grad_coefficients[i] = sum;
    }
  });
}

// Adds outputs [first, last) of a page of sums to the weight's gradient.
template <class T>
void add_page(const DiagonalConv& s, const Page<T>& page, int64_t first, int64_t last, T* grad_weight) {
  for (int64_t o = first; o < last; ++o) {
    each_tap(s, page.phase_y, page.phase_x, [&](int64_t at, int64_t v_y, int64_t v_x) {
      grad_weight[s.weight_offset(o, page.channel % s.group_inputs(), v_y, v_x)] +=
          page.values[(o - first) * s.window() + at];
    });
  }
}

// grad_weight = the sum of coefficient times grad over the symbols, in order; a thread owns some outputs. When a page
// goes depends on the symbols alone, so that a sum does not depend on the number of threads.
template <class T>
void grad_weight_kernel(const DiagonalConv& s, const T* grad, const T* coefficients, const int64_t* index,
                        T* grad_weight) {
  const int64_t work = s.batch * s.symbols * s.window();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, s.outputs, grain, [&](int64_t begin, int64_t end) {
    Pages<T> pages;
    auto owned = [&](int64_t channel) {  // the outputs of a channel that are this thread's
      const int64_t group = channel / s.group_inputs();
      return Span{std::max(begin, group * s.group_outputs()), std::min(end, (group + 1) * s.group_outputs())};
    };
    auto finish = [&](const Page<T>& page) {
      if (page.channel >= 0) {  // it was used; without channels none is
        const Span o = owned(page.channel);
        add_page(s, page, o.first, o.last, grad_weight);
      }
    };
    for (int64_t k = 0; k < s.symbols; ++k) {
      const ConvPlace p = conv_place(s, index[k]);
      const Span o = owned(p.channel);
      Page<T>& page = pages.at(p);
      if (!page.is(p)) {
        finish(page);
        page = {p.channel, p.phase_y, p.phase_x, std::move(page.values)};
        page.values.assign(std::max<int64_t>(0, o.size()) * s.window(), T(0));
      }
      for (int64_t b = 0; o.size() > 0 && b < s.batch; ++b) {
        const int64_t i = b * s.symbols + k;
        const T* g = grad + i * s.patch() + o.first * s.window();
        each_box(s, Inside(s, p), o.size(), [&](const Box& box, int64_t first) {
          add_scaled(box, coefficients[i], g + first, page.values.data() + first);
        });
      }
    }
    pages.each(finish);
  });
}

}  // namespace

Tensor diagonal_conv(const Tensor& coefficients, const Tensor& index, const Tensor& weight,
                     std::vector<int64_t> input_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
                     std::vector<int64_t> dilation, int64_t groups, std::vector<int64_t> output_size) {
  DiagonalConvForward out =
      prepare_diagonal_conv(coefficients, index, weight, {input_size, stride, padding, dilation, output_size, groups});
  check_range("diagonal_conv", out.s, index.const_data_ptr<int64_t>());
  dispatch_dtype("diagonal_conv", coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    forward_kernel<T>(out.s, coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
                      weight.const_data_ptr<T>(), out.patches.mutable_data_ptr<T>());
  });
  return out.patches;
}

std::tuple<Tensor, Tensor> diagonal_conv_backward(const Tensor& grad, const Tensor& coefficients, const Tensor& index,
                                                  const Tensor& weight, std::vector<int64_t> input_size,
                                                  std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                  std::vector<int64_t> dilation, int64_t groups,
                                                  std::vector<int64_t> output_size, bool needs_weight) {
  const char* op = "diagonal_conv_backward";
  DiagonalConvBackward out = prepare_diagonal_conv_backward(
      grad, coefficients, index, weight, {input_size, stride, padding, dilation, output_size, groups}, needs_weight);
  check_range(op, out.s, index.const_data_ptr<int64_t>());
  dispatch_dtype(op, coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    grad_coefficients_kernel<T>(out.s, grad.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
                                weight.const_data_ptr<T>(), out.grad_coefficients.mutable_data_ptr<T>());
    if (needs_weight) {
      grad_weight_kernel<T>(out.s, grad.const_data_ptr<T>(), coefficients.const_data_ptr<T>(),
                            index.const_data_ptr<int64_t>(), out.grad_weight.mutable_data_ptr<T>());
    }
  });
  return {out.grad_coefficients, out.grad_weight};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("diagonal_conv", TORCH_BOX(&diagonal_conv));
  m.impl("_diagonal_conv_backward", TORCH_BOX(&diagonal_conv_backward));
}

}  // namespace zonocuda::cpu
