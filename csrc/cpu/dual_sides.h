// What the CPU kernels of dual rows share: the slopes of a side, and how the rows are divided.
#pragma once

#include <optional>

#include "../common/dual_arguments.h"
#include "dual_rows.h"
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

}  // namespace zonocuda::cpu
