#pragma once

#include <limits>

#include "../math/nonsmooth.h"

namespace zonocuda::cuda {

/// A thread owns a window of x [images, height, width, inner], reads its elements twice, and writes a value and its
/// words of winners. A window without an element (all padding) is -inf and has no winner. Grid: x over windows
/// (looped).
template <class T>
__global__ void nonsmooth_max_pool2d_kernel(Pool s, const T* x, T* values, int32_t* winners) {
  using W = Wide<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.outputs(); i += stride) {
    const int64_t column = i / s.inner % s.x.output, row = i / s.inner / s.x.output % s.y.output;
    const T* image = x + i / s.inner / s.x.output / s.y.output * s.y.input * s.x.input * s.inner + i % s.inner;
    W best = -std::numeric_limits<W>::infinity();
    int64_t nan = -1;
    for (int64_t t = 0; t < s.elements(); ++t) {
      const int64_t ay = s.y.at(row, t / s.x.kernel), ax = s.x.at(column, t % s.x.kernel);
      if (s.y.contains(ay) && s.x.contains(ax)) {
        const W v = W(image[(ay * s.x.input + ax) * s.inner]);
        nan = v != v ? t : nan;
        best = v > best || v != v ? v : best;
      }
    }
    uint32_t bits = 0;
    for (int64_t t = 0; t < s.elements(); ++t) {
      const int64_t ay = s.y.at(row, t / s.x.kernel), ax = s.x.at(column, t % s.x.kernel);
      if (s.y.contains(ay) && s.x.contains(ax)) {
        const W v = W(image[(ay * s.x.input + ax) * s.inner]);
        bits |= uint32_t(nan < 0 ? v == best : t == nan) << (t % kWordBits);
      }
      if ((t + 1) % kWordBits == 0 || t + 1 == s.elements()) {
        winners[t / kWordBits * s.outputs() + i] = int32_t(bits);
        bits = 0;
      }
    }
    values[i] = T(best);
  }
}

/// A thread owns an element of grad_x and gathers from the windows that it won, in the order of reading: the additions
/// of the CPU kernel, in its order, without atomics. What a winner in the padding takes is lost. Grid: x over elements
/// (looped).
template <class T>
__global__ void nonsmooth_max_pool2d_backward_kernel(Pool s, const T* grad, const int32_t* winners, TieWeights weights,
                                                     T* grad_x) {
  using W = Wide<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.inputs(); i += stride) {
    const int64_t px = i / s.inner % s.x.input, py = i / s.inner / s.x.input % s.y.input;
    const int64_t image = i / s.inner / s.x.input / s.y.input;
    T sum = T(0);
    for (int64_t row = s.y.first_window(py); row <= s.y.last_window(py); ++row) {
      const int64_t ty = s.y.element(row, py);
      for (int64_t column = s.x.first_window(px); ty >= 0 && column <= s.x.last_window(px); ++column) {
        const int64_t tx = s.x.element(column, px);
        if (tx >= 0) {
          const int64_t at = ((image * s.y.output + row) * s.x.output + column) * s.inner + i % s.inner;
          const Winners w{winners + at, s.elements(), s.outputs()};
          const int64_t t = ty * s.x.kernel + tx;
          if (w.has(t)) {
            const Tie tie = read_tie(w);
            const T share = T(tie_share(W(grad[at]), tie.count, t == tie.first, t == tie.last, weights));
            sum = T(W(sum) + W(share));
          }
        }
      }
    }
    grad_x[i] = sum;
  }
}

}  // namespace zonocuda::cuda
