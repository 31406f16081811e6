// What the CPU kernels of dual rows share: the slopes of a side, and how the rows are divided.
#pragma once

#include <optional>

#include "../common/dual_arguments.h"
#include "dual_rows.h"
#include "neurons.h"
#include "tiles.h"

namespace zonocuda::cpu {

constexpr int64_t kRowBlock = 16;  // rows that share what belongs to the neurons

/// The slopes of one side; `data` null: tied, or there are no rows.
template <class T>
struct Side {
  const T* data;
  int64_t batch_stride, row_stride;

  Side(const std::optional<Tensor>& slope, int64_t count, const DualSizes& s)
      : data(count > 0 ? slope->const_data_ptr<T>() : nullptr),
        batch_stride(count * s.features),
        row_stride(count > 1 ? s.features : 0) {}

  bool per_row() const { return row_stride != 0; }
  const T* at(int64_t b, int64_t r, int64_t n) const {
    return data ? data + b * batch_stride + r * row_stride + n : nullptr;
  }
};

template <class T>
T sum_lanes(const T* lanes) {
  T sum = T(0);
  for (int i = 0; i < kDualLanes; ++i) {
    sum += lanes[i];
  }
  return sum;
}

/// The columns of a piece that one thread takes through all rows.
inline int64_t strip_width(const DualSizes& s) {
  const int64_t share = ceil_div(s.batch * s.features, torch::stable::get_num_threads());
  return std::clamp<int64_t>(ceil_div(share, kMinTile) * kMinTile, kMinTile, kDualStrip);
}

/// What the backward pass collects of one side. A piece of columns belongs to one thread.
template <class T>
struct SideGrads {
  const Side<T>& side;
  const T *l, *u;
  int64_t features;
  KinkChoice<T> choice;
  T* slopes;                                     // null: tied, or nobody wants them
  T *lower, *upper;                              // null: nobody wants them; they are added to
  T multiplier[kDualStrip], offset[kDualStrip];  // sums over the rows that share their slopes
  T slope[kDualStrip], low[kDualStrip], high[kDualStrip];

  void begin(int64_t width) {
    std::fill_n(multiplier, width, T(0));
    std::fill_n(offset, width, T(0));
  }

  /// After each row, whose gradients of lam and mu these are, on a side with slopes for single rows.
  void finish_row(const T* of_multiplier, const T* of_offset, int64_t b, int64_t r, int64_t n, int64_t width) {
    const int64_t neuron = b * features + n;
    T* const out = slopes ? slopes + b * side.batch_stride + r * side.row_stride + n : slope;
    relax_backward(l + neuron, u + neuron, side.at(b, r, n), choice, of_multiplier, of_offset, width, out, low, high);
    if (lower) {
      add_all(low, width, lower + neuron);
      add_all(high, width, upper + neuron);
    }
  }

  /// After the last row, on a side whose slopes the rows share.
  void finish(int64_t b, int64_t n, int64_t width) {
    if (!side.per_row()) {
      finish_row(multiplier, offset, b, 0, n, width);
    }
  }
};

}  // namespace zonocuda::cpu
