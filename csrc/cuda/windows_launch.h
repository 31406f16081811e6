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
  with_index(is_narrow(s, sum.splits), [&](auto i) {
    using I = decltype(i);
    sum_windows_kernel<T, I><<<grid, block, 0, stream>>>({cast_sizes<I>(s), I(sum.splits), I(sum.warp_planes)}, term,
                                                         corners.const_data_ptr<int64_t>(),
                                                         partial.mutable_data_ptr<T>());
  });
  check_launch(op);
  if (sum.splits > 1) {
    add_splits_kernel<T><<<blocks_for(count, kThreads), kThreads, 0, stream>>>(
        sum.splits, count, partial.const_data_ptr<T>(), result.mutable_data_ptr<T>());
    check_launch(op);
  }
}

/// How kernels that list kMapListed symbols at a time share out `count` numbers of each of them.
inline dim3 listed_grid(const Windows& s, int64_t count, int vector) {
  const int64_t groups = s.batch * ceil_div(count, int64_t(kLanes) * vector);
  const int64_t lists = std::clamp<int64_t>(ceil_div(4 * kTargetBlocks, groups), 1,
                                            std::min<int64_t>(ceil_div(s.symbols, int64_t(kMapListed)), 65535));
  return dim3(blocks_for(groups, 1), static_cast<unsigned>(lists));
}

/// patches = map, see map_windows_kernel; `pointers`: to what is read and written in patches.
template <class T, class Map>
void map_windows(const char* op, const Windows& s, const Tensor& corners, Map map,
                 std::initializer_list<const void*> pointers, Tensor& patches, cudaStream_t stream) {
  if (s.batch * s.symbols * s.patch() == 0) {
    return;
  }
  with_vector<T>({s.batch, s.symbols, s.patch()}, pointers, [&](auto v) {
    with_index(is_narrow(s), [&](auto i) {
      using I = decltype(i);
      map_windows_kernel<T, I, v.value><<<listed_grid(s, s.patch(), v.value), dim3(kLanes, kStrips), 0, stream>>>(
          cast_sizes<I>(s), corners.const_data_ptr<int64_t>(), map, patches.mutable_data_ptr<T>());
    });
  });
  check_launch(op);
}

}  // namespace zonocuda::cuda
