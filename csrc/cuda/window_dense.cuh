#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// generators[b, k, c, y, x] = the patch there, 0 elsewhere. Grid: x over the positions of each batch element's map
/// (looped), y over strips of symbols (looped); block (kLanes, kStrips). A thread keeps its position (c, y, x) and
/// passes from symbol to symbol. Writes each number once, reads the patches: bound by memory bandwidth. kUnroll numbers
/// are loaded before the first is stored, see map_rows_kernel.
template <class T>
__global__ void window_dense_kernel(Windows s, const int64_t* corners, const T* patches, T* generators) {
  const int64_t groups = ceil_div(s.map(), kLanes);
  for (int64_t group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups;
    const int64_t place = group % groups * kLanes + threadIdx.x;
    if (place >= s.map()) {
      continue;
    }
    const int64_t c = place / s.plane();
    const int64_t y = place / s.width % s.height, x = place % s.width;
    const int64_t stride = int64_t(gridDim.y) * kStrips;
    for (int64_t first = int64_t(blockIdx.y) * kStrips + threadIdx.y; first < s.symbols; first += kUnroll * stride) {
      T values[kUnroll] = {};
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        const int64_t k = first + r * stride;
        if (k < s.symbols) {
          const int64_t t = y - near_corner(corners[2 * k], s.rows, 0, s.height);
          const int64_t u = x - near_corner(corners[2 * k + 1], s.columns, 0, s.width);
          if (between(0, t, s.rows) && between(0, u, s.columns)) {
            values[r] = patches[(((b * s.symbols + k) * s.channels + c) * s.rows + t) * s.columns + u];
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        const int64_t k = first + r * stride;
        if (k < s.symbols) {
          generators[(b * s.symbols + k) * s.map() + place] = values[r];
        }
      }
    }
  }
}

/// the generator's own map, at the window's place
template <class T>
struct WindowGatherMap {
  const T* maps;
  int64_t size;  // of one map

  __device__ T operator()(int64_t, int64_t generator, int64_t, int64_t place) const {
    return maps[generator * size + place];
  }
};

}  // namespace zonocuda::cuda
