// Host side of windows.cuh: splits of the symbols, scratch, launches.
#pragma once

#include "../common/window_arguments.h"
#include "columns_launch.h"
#include "windows.cuh"

namespace zonocuda::cuda {

constexpr int64_t kWindowsPerSplit = 64;  // symbols: below, a block does too little

/// Depends on the shape alone. The partial sums never hold more than half as many numbers as the patches.
template <class T>
WindowSum make_window_sum(const Windows& s) {
  const int64_t window = s.rows * s.columns;
  WindowSum sum{s, 1, window <= 8 ? 4 : window <= 16 ? 2 : 1};
  const int64_t blocks = s.batch * sum.groups() * sum.tiles_y(kSumHeight<T>) * sum.tiles_x();
  const int64_t worthwhile = std::min(s.symbols / kWindowsPerSplit, s.symbols * window / (2 * s.plane()));
  sum.splits = std::clamp<int64_t>(std::min(ceil_div(kTargetBlocks, blocks), worthwhile), 1, kMaxSplits);
  return sum;
}

/// result [batch, channels, height, width] = the sum of term over the windows. Moves each patch once, and the map once
/// for each split, twice.
template <class T, class Term>
void sum_windows(const char* op, const Windows& s, Term term, const Tensor& corners, Tensor& result,
                 cudaStream_t stream) {
  if (s.batch * s.map() == 0) {
    return;
  }
  const WindowSum sum = make_window_sum<T>(s);
  const int64_t count = s.batch * s.map();
  Tensor partial = sum.splits == 1 ? result : empty_like_sizes({sum.splits, count}, result);
  const int64_t tiles = s.batch * sum.groups() * sum.tiles_y(kSumHeight<T>) * sum.tiles_x();
  const dim3 grid(blocks_for(tiles, 1), static_cast<unsigned>(sum.splits));
  const dim3 block(kLanes, static_cast<unsigned>(kSumPlanes / sum.warp_planes));
  sum_windows_kernel<T>
      <<<grid, block, 0, stream>>>(sum, term, corners.const_data_ptr<int64_t>(), partial.mutable_data_ptr<T>());
  check_launch(op);
  if (sum.splits > 1) {
    add_splits_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, stream>>>(
        sum.splits, count, partial.const_data_ptr<T>(), result.mutable_data_ptr<T>());
    check_launch(op);
  }
}

/// patches = map, see map_windows_kernel.
template <class T, class Map>
void map_windows(const char* op, const Windows& s, const Tensor& corners, Map map, Tensor& patches,
                 cudaStream_t stream) {
  if (s.batch * s.symbols * s.patch() == 0) {
    return;
  }
  const int64_t groups = s.batch * ceil_div(s.patch(), kLanes);
  const int64_t strips = std::clamp<int64_t>(ceil_div(4 * kTargetBlocks, groups), 1, ceil_div(s.symbols, kStrips));
  const dim3 grid(blocks_for(groups, 1), static_cast<unsigned>(strips));
  map_windows_kernel<T><<<grid, dim3(kLanes, kStrips), 0, stream>>>(s, corners.const_data_ptr<int64_t>(), map,
                                                                    patches.mutable_data_ptr<T>());
  check_launch(op);
}

}  // namespace zonocuda::cuda
