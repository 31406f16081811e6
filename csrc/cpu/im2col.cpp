#include <algorithm>
#include <vector>

#include "../common/im2col_arguments.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

// The outputs of an axis whose windows hold a position of the map at tap v.
Span on_map(const ConvAxis& a, int64_t v) {
  const int64_t back = a.padding - v * a.dilation;  // output i sees stride i - back
  const int64_t first = std::max<int64_t>(0, floor_div(back + a.stride - 1, a.stride));
  return {first, std::clamp<int64_t>(floor_div(a.in - 1 + back, a.stride) + 1, first, std::max(first, a.out))};
}

int64_t position(const ConvAxis& a, int64_t output, int64_t v) {
  return output * a.stride + v * a.dilation - a.padding;
}

// f(first output, first position, outputs) for every line of outputs of an image that sees the map at a tap.
template <class F>
void each_line(const Im2col& s, int64_t tap, F f) {
  const int64_t v_x = tap % s.x.kernel, v_y = tap / s.x.kernel % s.y.kernel, v_z = tap / s.x.kernel / s.y.kernel;
  const Span z = on_map(s.z, v_z), y = on_map(s.y, v_y), x = on_map(s.x, v_x);
  for (int64_t o_z = z.first; o_z < z.last; ++o_z) {
    for (int64_t o_y = y.first; o_y < y.last && x.size() > 0; ++o_y) {
      const int64_t at = position(s.z, o_z, v_z) * s.y.in + position(s.y, o_y, v_y);
      f((o_z * s.y.out + o_y) * s.x.out + x.first, at * s.x.in + position(s.x, x.first, v_x), x.size());
    }
  }
}

int64_t grain_of(int64_t work) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)); }

template <class T>
void columns_kernel(const Im2col& s, const T* x, T* columns) {
  torch::stable::parallel_for(0, s.rows(), grain_of(s.columns()), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t n = 0; n < s.images; ++n) {
        const T* from = x + (n * s.channels + row / s.taps()) * s.plane();
        T* to = columns + row * s.columns() + n * s.outputs();
        std::fill_n(to, s.outputs(), T(0));
        each_line(s, row % s.taps(), [&](int64_t output, int64_t at, int64_t count) {
          for (int64_t i = 0; i < count; ++i) {
            to[output + i] = from[at + i * s.x.stride];
          }
        });
      }
    }
  });
}

// A plane of an image at a time, tap after tap.
template <class T>
void backward_kernel(const Im2col& s, const T* columns, T* x) {
  torch::stable::parallel_for(0, s.images * s.channels, grain_of(s.taps() * s.outputs()),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t i = begin; i < end; ++i) {
                                  const int64_t n = i / s.channels, c = i % s.channels;
                                  T* to = x + i * s.plane();
                                  std::fill_n(to, s.plane(), T(0));
                                  for (int64_t tap = 0; tap < s.taps(); ++tap) {
                                    const T* from = columns + (c * s.taps() + tap) * s.columns() + n * s.outputs();
                                    each_line(s, tap, [&](int64_t output, int64_t at, int64_t count) {
                                      for (int64_t j = 0; j < count; ++j) {
                                        to[at + j * s.x.stride] += from[output + j];
                                      }
                                    });
                                  }
                                }
                              });
}

}  // namespace

Tensor im2col(const Tensor& x, std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> padding,
              std::vector<int64_t> dilation, std::vector<int64_t> output_size) {
  Im2colForward out = prepare_im2col(x, {kernel, stride, padding, dilation, output_size});
  dispatch_dtype("im2col", x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    columns_kernel(out.s, x.const_data_ptr<T>(), out.columns.mutable_data_ptr<T>());
  });
  return out.columns;
}

Tensor im2col_backward(const Tensor& grad, std::vector<int64_t> input_size, std::vector<int64_t> kernel,
                       std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                       std::vector<int64_t> output_size) {
  Im2colBackward out = prepare_im2col_backward(grad, input_size, {kernel, stride, padding, dilation, output_size});
  dispatch_dtype("im2col_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    backward_kernel(out.s, grad.const_data_ptr<T>(), out.grad_x.mutable_data_ptr<T>());
  });
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("im2col", TORCH_BOX(&im2col));
  m.impl("_im2col_backward", TORCH_BOX(&im2col_backward));
}

}  // namespace zonocuda::cpu
