// Host side of columns.cuh: vector width, division of the symbols over blocks, scratch, launches.
#pragma once

#include "../common/check.h"
#include "columns.cuh"
#include "launch.h"

namespace zonocuda::cuda {

constexpr int64_t kTargetBlocks = 1024;  // enough to fill a device; fixed, so that sums do not depend on the device
constexpr int64_t kMaxSplits = 64;       // parts of a sum that is divided by shape

inline bool vectorises(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// Calls f with the widest vector that the row length and every pointer allow: 16 bytes, or one element.
template <class T, class F>
void with_vector(const Sizes& s, std::initializer_list<const void*> pointers, F f) {
  const bool wide = s.features % kVector<T> == 0 && std::all_of(pointers.begin(), pointers.end(), vectorises);
  if (wide) {
    f(std::integral_constant<int, kVector<T>>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

inline int64_t column_blocks(const Sizes& s, int vector) {
  return std::max<int64_t>(1, ceil_div(s.batch * (s.features / vector), kLanes));
}

inline Layout layout_of(const Sizes& s) { return {s.batch, s.symbols, s.features}; }

/// Blocks that share the segments of a column, in equal parts: as many as fill the device.
inline int64_t segment_blocks(const Sizes& s, int vector) {
  const int64_t segments = layout_of(s).segments();
  const int64_t wanted = std::min(ceil_div(kTargetBlocks, column_blocks(s, vector)), segments);
  return ceil_div(segments, ceil_div(segments, wanted));
}

/// Partial sums of a term, [segments, batch, features].
template <class T, class Term>
Tensor sum_columns(const char* op, const Sizes& s, Term term, std::initializer_list<const void*> pointers,
                   const Tensor& like, cudaStream_t stream) {
  Tensor partial = empty_like_sizes({layout_of(s).segments(), s.batch, s.features}, like);
  if (s.symbols == 0) {
    return partial;
  }
  with_vector<T>(s, pointers, [&](auto v) {
    constexpr int V = v.value;
    const dim3 grid(blocks_for(column_blocks(s, V), 1), static_cast<unsigned>(segment_blocks(s, V)));
    sum_columns_kernel<T, V>
        <<<grid, dim3(kLanes, kStrips), 0, stream>>>(layout_of(s), term, partial.mutable_data_ptr<T>());
    check_launch(op);
  });
  return partial;
}

template <class T, class Map>
void map_rows(const char* op, const Sizes& s, Map map, std::initializer_list<const void*> pointers, T* result,
              cudaStream_t stream) {
  if (s.symbols == 0) {
    return;
  }
  with_vector<T>(s, pointers, [&](auto v) {
    constexpr int V = v.value;
    const int64_t columns = column_blocks(s, V);
    const int64_t strips = std::clamp<int64_t>(ceil_div(4 * kTargetBlocks, columns), 1, ceil_div(s.symbols, kStrips));
    const dim3 grid(blocks_for(columns, 1), static_cast<unsigned>(strips));
    map_rows_kernel<T, V><<<grid, dim3(kLanes, kStrips), 0, stream>>>(layout_of(s), map, result);
    check_launch(op);
  });
}

}  // namespace zonocuda::cuda
